// The operations that have one name for scalars and vectors, for float and double on the device.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/config.h"
#include "cuda/intrinsics.cuh"

namespace vae_fast::VF_ISA::math {

VF_FN float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
VF_FN double fma(double a, double b, double c) { return ::fma(a, b, c); }
// NaN where the second operand is, unlike fminf and fmaxf.
template <class T>
VF_FN T min(T a, T b) {
  return a < b ? a : b;
}
template <class T>
VF_FN T max(T a, T b) {
  return a > b ? a : b;
}
VF_FN float min(float a, float b) { return intrinsics::min_nan(a, b); }
VF_FN float max(float a, float b) { return intrinsics::max_nan(a, b); }
// value where a == b, else 0.
template <class T>
VF_FN T select_equal(T a, T b, T value) {
  return a == b ? value : T(0);
}
// a where k is zero (of either sign), else b.
template <class T>
VF_FN T select_zero(T k, T a, T b) {
  return k == T(0) ? a : b;
}
// below where a < limit, else otherwise.
template <class T>
VF_FN T select_below(T a, T limit, T below, T otherwise) {
  return a < limit ? below : otherwise;
}

}  // namespace vae_fast::VF_ISA::math
