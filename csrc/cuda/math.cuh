// Elementary functions of float and double on the device.
//
// float: within a few units in the last place of the C library's, but cheaper, as the formulas and
// the bound on the noise allow. double: the C library's.
#pragma once

#include "cuda/intrinsics.cuh"
#include "cuda/primitives.cuh"
// After the primitives, which it is written in.
#include "common/sincos.h"

namespace vae_fast::VF_ISA::math {

VF_FN float exp(float x) { return ::expf(x); }
VF_FN double exp(double x) { return ::exp(x); }

// From e^v, except near 0, where that would cancel: there (e^v - 1 - v) / v^2 is a polynomial, a
// Taylor series to degree 5, whose remainder is below 1e-7 of it.
VF_FN Expm1<float> expm1_of(float v, float exp_v) {
  float q = fma(v, 1.0f / 5040.0f, 1.0f / 720.0f);
  q = fma(q, v, 1.0f / 120.0f);
  q = fma(q, v, 1.0f / 24.0f);
  q = fma(q, v, 1.0f / 6.0f);
  q = fma(q, v, 0.5f);
  const float near_zero = v * v * q;
  const float value = exp_v - 1.0f;
  const bool near = fabsf(v) < 0.35f;
  return {near ? v + near_zero : value, near ? near_zero : value - v};
}

VF_FN Expm1<float> expm1(float v) { return expm1_of(v, exp(v)); }
VF_FN Expm1<double> expm1(double v) {
  const double value = ::expm1(v);
  return {value, value - v};
}

// e^v as the square of e^(v/2): one exponential for both.
VF_FN ExpHalf<float> exp_half(float v) {
  const float root = exp(0.5f * v);
  const Expm1<float> whole = expm1_of(v, root * root);
  return {root, whole.expm1, whole.expm1_minus};
}
VF_FN ExpHalf<double> exp_half(double v) {
  const Expm1<double> whole = expm1(v);
  return {::exp(0.5 * v), whole.expm1, whole.expm1_minus};
}

template <class T>
VF_FN T unit_uniform(uint32_t word) {
  // The product is exact, so it does not matter whether the two are contracted.
  return static_cast<T>(static_cast<float>(word) * 0x1p-32f + 0x1p-33f);
}

// -2 ln u for u in [2^-33, 1]. What the square root of it errs by, the length of a normal, is below
// 2e-6: the instruction's error is absolute near u = 1, so there a series in 1 - u takes its place.
VF_FN float minus_two_log(float u) {
  const float t = 1.0f - u;  // exact where it is used
  return t < 0x1p-8f ? fma(t, t, t + t) : -1.38629436f * intrinsics::log2_approx(u);
}
VF_FN double minus_two_log(double u) { return -2.0 * ::log(u); }

VF_FN float sqrt(float x) { return intrinsics::sqrt_approx(x); }
VF_FN double sqrt(double x) { return ::sqrt(x); }

VF_FN void sincos_two_pi(float w, float& sine, float& cosine) {
  sincos_two_pi_unsigned(w, sine, cosine);
  sine = copysignf(sine, 0.5f - w);
}
VF_FN void sincos_two_pi(double w, double& sine, double& cosine) {
  ::sincospi(2.0 * w, &sine, &cosine);
}

}  // namespace vae_fast::VF_ISA::math
