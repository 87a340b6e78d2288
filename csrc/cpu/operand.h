// Tensors as the kernels take them: a pointer, a dtype and, where needed, strides.
#pragma once

#include <cstdint>

namespace vae_fast {

enum class DType : int { float64 = 0, float32 = 1, float16 = 2, bfloat16 = 3 };

constexpr int size_of(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

constexpr int kMaxDims = 64;

// An input, broadcast to the shape of the op: [*batch, *event], or with samples in front.
struct Operand {
  const void* data = nullptr;  // null: not given
  DType dtype = DType::float32;
  int dims = 0;               // 0: contiguous
  int64_t sizes[kMaxDims];    // adjacent dimensions that can be one are one
  int64_t strides[kMaxDims];  // in elements; 0 where broadcast
};

// What an output holds of the values at the elements: each one, or a sum of them.
enum class Reduction : int {
  full = 0,    // [rows, cols]
  row = 1,     // [rows]
  column = 2,  // [cols]
  total = 3,   // []
};

// A contiguous output.
struct Output {
  void* data = nullptr;  // null: not asked for
  DType dtype = DType::float32;
  Reduction reduction = Reduction::full;
};

struct Shape {
  int64_t rows;
  int64_t cols;
};

}  // namespace vae_fast
