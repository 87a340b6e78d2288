// Scalars that may lie on the device.
#pragma once

#include "cuda/element.cuh"
#include "cuda/kernels.h"

namespace vae_fast::device {

__device__ __forceinline__ double value_of(const Scalar& scalar) {
  return scalar.at == nullptr ? scalar.value : load_any<double>(scalar.at, scalar.dtype, 0);
}

}  // namespace vae_fast::device
