// Tensors as the CPU kernels take them: a pointer, a dtype and, where needed, strides.
#pragma once

#include "common/types.h"

namespace vae_fast {

constexpr int kMaxDims = 64;

// An input, broadcast to the shape of the op: [*batch, *event], or with samples in front.
struct Operand {
  const void* data = nullptr;  // null: not given
  DType dtype = DType::float32;
  int dims = 0;               // 0: contiguous
  int64_t sizes[kMaxDims];    // adjacent dimensions that can be one are one
  int64_t strides[kMaxDims];  // in elements; 0 where broadcast
};

}  // namespace vae_fast
