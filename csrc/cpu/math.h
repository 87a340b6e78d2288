// Elementary functions of F32 vectors, and of double through the C library.
//
// Polynomials are minimax fits on the reduced range; errors are stated where a bound rests on them.
#pragma once

#include <cmath>

#include "common/sincos.h"
#include "cpu/vector.h"

namespace vae_fast::VF_ISA::math {

using VF_ISA::fma;
using VF_ISA::max;
using VF_ISA::min;
using VF_ISA::select_below;
using VF_ISA::select_equal;
using VF_ISA::select_zero;
using VF_ISA::sqrt;

VF_FN double fma(double a, double b, double c) { return a * b + c; }
VF_FN double sqrt(double a) { return __builtin_sqrt(a); }
VF_FN double min(double a, double b) { return a < b ? a : b; }
VF_FN double max(double a, double b) { return a > b ? a : b; }
VF_FN double select_equal(double a, double b, double value) { return a == b ? value : 0.0; }
VF_FN double select_zero(double k, double a, double b) { return k == 0 ? a : b; }
VF_FN double select_below(double a, double limit, double below, double otherwise) {
  return a < limit ? below : otherwise;
}

// x = k ln 2 + r with integral k and |r| <= ln 2 / 2.
struct Reduced {
  F32 k, r;

  VF_FN explicit Reduced(F32 x) {
    const F32 shift(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    k = fma(x, F32(1.44269504f), shift) - shift;
    // ln 2 in two parts, the first with so few bits that k times it is exact.
    r = fma(k, F32(-0.693359375f), x);
    r = fma(k, F32(2.12194440e-4f), r);
  }

  // e^r - 1 - r; relative error 2e-8.
  VF_FN F32 tail() const {
    F32 q = fma(r, F32(1.992035878e-4f), F32(1.394612254e-3f));
    q = fma(q, r, F32(8.333260529e-3f));
    q = fma(q, r, F32(4.166626919e-2f));
    q = fma(q, r, F32(1.666666688e-1f));
    q = fma(q, r, F32(0.5f));
    return r * r * q;
  }
};

// What is known of an argument. Modest: not beyond kModest in size, so that no result and none of
// its factors leaves a float's range, and nothing has to be done about it.
enum class Range { any, modest };
constexpr double kModest = 80;

template <Range kRange = Range::any>
VF_FN F32 exp(F32 x) {
  // Beyond these the result is 0 or infinity; a NaN passes.
  if constexpr (kRange == Range::any) x = min(F32(88.8f), max(F32(-104.0f), x));
  const Reduced y(x);
  // e^r; the fit errs by 3e-9.
  F32 value = fma(y.r, F32(1.395054035e-3f), F32(8.368917844e-3f));
  value = fma(value, y.r, F32(4.166620507e-2f));
  value = fma(value, y.r, F32(1.666651860e-1f));
  value = fma(value, y.r, F32(5.000000095e-1f));
  value = fma(value, y.r, F32(1.0f));
  value = fma(value, y.r, F32(1.0f));
#if defined(__AVX512F__)
  return scaled(value, y.k);
#else
  if constexpr (kRange == Range::modest) return value * power_of_two(y.k);
  // In two factors, so that neither leaves the exponent's range.
  const F32 shift(12582912.0f);
  const F32 half = fma(y.k, F32(0.5f), shift) - shift;
  return value * power_of_two(half) * power_of_two(y.k - half);
#endif
}
template <Range kRange = Range::any>
VF_FN double exp(double x) {
  return std::exp(x);
}

template <Range kRange = Range::any>
VF_FN Expm1<F32> expm1(F32 v) {
  if constexpr (kRange == Range::modest) {
    const Reduced y(v);
    const F32 tail = y.tail(), scale = power_of_two(y.k);
    const F32 value = fma(scale, y.r + tail, scale - F32(1.0f));
    return {value, select_zero(y.k, tail, value - v)};
  }
  const Reduced y(min(F32(88.8f), max(F32(-86.0f), v)));
  const F32 tail = y.tail(), p = y.r + tail;
  const F32 half_scale = power_of_two(y.k - F32(1.0f));  // half: 2^128 is no float
  const F32 half_value = fma(half_scale, p, half_scale - F32(0.5f));
  const F32 value = half_value + half_value;
  return {value, select_zero(y.k, tail, value - v)};
}
template <Range kRange = Range::any>
VF_FN Expm1<double> expm1(double v) {
  const double value = std::expm1(v);
  return {value, value - v};
}

// One polynomial for both e^(v/2) and e^v - 1.
template <Range kRange = Range::any>
VF_FN ExpHalf<F32> exp_half(F32 v) {
  F32 half_v = F32(0.5f) * v;
  if constexpr (kRange == Range::any) half_v = min(F32(88.8f), max(F32(-86.0f), half_v));
  const Reduced y(half_v);
  const F32 tail = y.tail(), p = y.r + tail;
  // e^v - 1 = 4^k p (p + 2) + 4^k - 1, where (1 + p)^2 = e^(2r).
  const F32 product = p * (p + F32(2.0f));
  // For k = 0, v = 2r and e^(2r) - 1 - 2r = r^2 + tail (2 + 2r + tail): all terms but 2r positive.
  const F32 small = fma(tail, fma(F32(2.0f), y.r, F32(2.0f)) + tail, y.r * y.r);
  if constexpr (kRange == Range::modest) {
    const F32 scale = power_of_two(y.k), square = scale * scale;
    const F32 value = fma(square, product, square - F32(1.0f));
    return {fma(scale, p, scale), value, select_zero(y.k, small, value - v)};
  }
  const F32 half_scale = power_of_two(y.k - F32(1.0f));
  const F32 half_root = fma(half_scale, p, half_scale);
  const F32 half_square = (half_scale + half_scale) * half_scale;
  const F32 half_value = fma(half_square, product, half_square - F32(0.5f));
  const F32 infinity(__builtin_inff());
  const F32 value = select_above(v, F32(88.8f), infinity, half_value + half_value);
  return {half_root + half_root, value, select_zero(y.k, small, value - v)};
}
template <Range kRange = Range::any>
VF_FN ExpHalf<double> exp_half(double v) {
  const double value = std::expm1(v);
  return {std::exp(0.5 * v), value, value - v};
}

template <class T, class U>
VF_FN T unit_uniform(U word);
template <>
VF_FN F32 unit_uniform<F32, U32>(U32 word) {
  return fma(unsigned_to_float(word), F32(0x1p-32f), F32(0x1p-33f));
}
template <>
VF_FN double unit_uniform<double, uint32_t>(uint32_t word) {
  return static_cast<float>(word) * 0x1p-32f + 0x1p-33f;
}

// kFactor ln u, with no rounding of its own for the factor, for a positive normal u; relative error
// below 2e-7.
template <int kFactor = 1>
VF_FN F32 log_of_normal(F32 u) {
  static_assert(kFactor == 1 || kFactor == -2, "a power of two, whatever its sign");
  constexpr float kBy = kFactor;
  // u = m 2^k with m in [sqrt(1/2), sqrt(2)), from the bits.
  const U32 root_half(0x3F3504F3u);
  const U32 exponent = (bits(u) - root_half) & U32(0xFF800000u);
  const F32 k = signed_to_float(exponent);  // times 2^23
  const F32 f = from_bits(bits(u) - exponent) - F32(1.0f);
  F32 p = fma(f, F32(kBy * 8.700437761e-2f), F32(kBy * -1.426748615e-1f));
  p = fma(p, f, F32(kBy * 1.491476694e-1f));
  p = fma(p, f, F32(kBy * -1.657758474e-1f));
  p = fma(p, f, F32(kBy * 1.996306389e-1f));
  p = fma(p, f, F32(kBy * -2.500133704e-1f));
  p = fma(p, f, F32(kBy * 3.333391074e-1f));
  const F32 square = f * f, linear = kFactor == 1 ? f : F32(kBy) * f;
  const F32 log1p = fma(square, fma(f, p, F32(kBy * -0.5f)), linear);
  return fma(k, F32(kBy * 0.693147181f * 0x1p-23f), log1p);
}

// ln u for u of 0 or a normal above, infinity and NaN among them.
VF_FN F32 log(F32 u) {
  const F32 infinity(__builtin_inff());
  return select_below(u, infinity, select_zero(u, -infinity, log_of_normal(u)), u);
}
VF_FN double log(double u) { return std::log(u); }

// -2 ln u for u in [2^-33, 1]; relative error below 2e-7.
VF_FN F32 minus_two_log(F32 u) { return log_of_normal<-2>(u); }
VF_FN double minus_two_log(double u) { return -2.0 * std::log(u); }

VF_FN void sincos_two_pi(F32 w, F32& sine, F32& cosine) {
  F32 c;
  sincos_two_pi_unsigned(w, c, cosine);
  sine = from_bits(bits(c) ^ (bits(F32(0.5f) - w) & U32(0x80000000u)));
}
VF_FN void sincos_two_pi(double w, double& sine, double& cosine) {
  const double angle = 6.283185307179586476925 * (w - std::nearbyint(w));
  sine = std::sin(angle);
  cosine = std::cos(angle);
}

}  // namespace vae_fast::VF_ISA::math
