// What a tensor is to the kernels of every device, and how a call is described.
#pragma once

#include <cstdint>

namespace vae_fast {

enum class DType : int { float64 = 0, float32 = 1, float16 = 2, bfloat16 = 3 };

// What an output holds of the values at the elements: each one, or a sum of them.
enum class Reduction : int {
  full = 0,    // [rows, cols]
  row = 1,     // [rows]
  column = 2,  // [cols]
  total = 3,   // []
};

enum class LossReduction : int { mean = 0, sum = 1, none = 2 };

// A contiguous output, or one whose rows lie apart.
struct Output {
  void* data = nullptr;  // null: not asked for
  DType dtype = DType::float32;
  Reduction reduction = Reduction::full;
  int64_t row_gap = 0;  // elements from the end of a row to the next, for Reduction::full
};

struct Shape {
  int64_t rows;
  int64_t cols;
};

struct LogVarBounds {
  double low, high;
};

// What is done to the KL of an element beside summing it.
struct KLControl {
  double floor;             // an element below counts as this, and has no gradient; -inf: none
  double posterior_weight;  // of the KL's gradients to mean and logvar
  double prior_weight;      // and to those of the prior
};

}  // namespace vae_fast
