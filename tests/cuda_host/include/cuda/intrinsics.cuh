// The approximate instructions as the host runs them: right, or off by all that NVIDIA's bounds
// allow, towards the side that cuda_host::options().error says (csrc/cuda/intrinsics.cuh).
#pragma once

#include <cmath>

#include "executor.h"

namespace vae_fast::device::intrinsics {

inline float log2_approx(float x) {
  const double exact = std::log2(static_cast<double>(x));
  const double bound = x > 0.5f && x < 2.0f ? 0x1p-22 : 0x1p-22 * std::fabs(exact);
  return static_cast<float>(exact + cuda_host::options().error * bound);
}

inline float sqrt_approx(float x) {
  const double exact = std::sqrt(static_cast<double>(x));
  return static_cast<float>(exact * (1.0 + cuda_host::options().error * 0x1p-23));
}

inline float min_nan(float a, float b) { return a < b || std::isnan(a) ? a : b; }
inline float max_nan(float a, float b) { return a > b || std::isnan(a) ? a : b; }

}  // namespace vae_fast::device::intrinsics
