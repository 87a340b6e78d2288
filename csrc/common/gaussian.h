// The value and the gradient of each op at one element, for T a scalar or a vector of them.
//
// m mean, v log-variance (clamped), p_ of the prior. Sums over elements, and the upstream gradients
// of them, are the kernels' business.
#pragma once

#include "common/math.h"

namespace vae_fast::VF_ISA {

template <class T>
struct Bounds {
  T low, high;

  // A NaN stays one: math::min and math::max give the second operand where either is NaN.
  VF_FN T clamp(T v) const { return math::min(high, math::max(low, v)); }
  // The clamp's gradient: 1 at and inside the bounds, where it changed nothing, and 0 outside.
  VF_FN T gate(T v, T clamped, T gradient) const {
    return math::select_equal(v, clamped, gradient);
  }
};

// What a gradient from above, g, is multiplied by. Where g is 0 nothing arrives, so nothing goes
// on, whatever the factor is: it may be infinite, or NaN. The factor and not the product is made 0,
// so that a product and a sum can still be one operation. kMayBeZero: false where the caller knows
// that g is not, which saves the selection.
template <bool kMayBeZero = true, class T>
VF_FN T unless_zero(T g, T factor) {
  if constexpr (!kMayBeZero) return factor;
  return math::select_zero(g, T(0.0f), factor);
}

// KL from N(0, 1): (m^2 + expm1(v) - v) / 2. Gradients are times g, the upstream one.
template <class T, bool kMayBeZero = true>
struct StandardKL {
  VF_FN static T value(T m, T expm1_minus) { return T(0.5f) * math::fma(m, m, expm1_minus); }
  VF_FN static T grad_mean(T g, T m) { return g * unless_zero<kMayBeZero>(g, m); }
  VF_FN static T grad_logvar(T g, T expm1) {
    return g * unless_zero<kMayBeZero>(g, T(0.5f) * expm1);
  }
};

// KL from N(p_m, e^p_v): ((m - p_m)^2 e^-p_v + expm1(v - p_v) - (v - p_v)) / 2.
template <class T, bool kMayBeZero = true>
struct GeneralKL {
  T difference;  // m - p_m
  T scaled;      // (m - p_m) e^-p_v
  math::Expm1<T> ratio;

  VF_FN GeneralKL(T m, T v, T p_m, T p_v)
      : difference(m - p_m), scaled(difference * math::exp(-p_v)), ratio(math::expm1(v - p_v)) {}
  VF_FN T value() const { return T(0.5f) * math::fma(difference, scaled, ratio.expm1_minus); }
  // All times g, the upstream gradient.
  VF_FN T grad_mean(T g) const { return g * unless_zero<kMayBeZero>(g, scaled); }
  VF_FN T grad_logvar(T g) const { return g * unless_zero<kMayBeZero>(g, T(0.5f) * ratio.expm1); }
  VF_FN T grad_prior_mean(T g) const { return g * unless_zero<kMayBeZero>(g, -scaled); }
  VF_FN T grad_prior_logvar(T g) const {
    return g * unless_zero<kMayBeZero>(g, T(-0.5f) * math::fma(difference, scaled, ratio.expm1));
  }
};

// Free bits: an element's KL below the floor counts as the floor, and gets no upstream gradient g.
// A NaN is not below.
template <class T>
VF_FN T with_floor(T kl, T floor) {
  return math::max(floor, kl);
}
template <class T>
VF_FN T above_floor(T kl, T floor, T g) {
  return math::select_below(kl, floor, T(0.0f), g);
}

// log N(x; m, e^v) = -(ln 2pi + v + (x - m)^2 e^-v) / 2; precision is e^-v.
template <class T, bool kMayBeZero = true>
struct LogDensity {
  static constexpr double kLogTwoPi = 1.8378770664093454836;

  T v;
  T scaled;  // (x - m) e^-v
  T square;  // (x - m)^2 e^-v

  VF_FN LogDensity(T x, T m, T v, T precision)
      : v(v), scaled((x - m) * precision), square((x - m) * scaled) {}
  VF_FN T value() const { return T(-0.5f) * (T(kLogTwoPi) + deviance()); }
  // -2 log N without the constant. The log-density of a row is -(D ln 2pi + the sum of this) / 2.
  VF_FN T deviance() const { return v + square; }
  // Both times g, the upstream gradient.
  VF_FN T grad_mean(T g) const { return g * unless_zero<kMayBeZero>(g, scaled); }
  VF_FN T grad_logvar(T g) const {
    const T half = T(0.5f) * g;
    return math::fma(half, unless_zero<kMayBeZero>(g, square), -half);
  }
};

template <class T>
VF_FN T squared_error(T x, T m) {
  return (x - m) * (x - m);
}

// What arrives at samples z = m + e^(v/2) eps goes on to v by the sum over them of h eps, where h
// is what arrives at one.
template <class T>
VF_FN T slope_of(T h, T eps) {
  return h * unless_zero(h, eps);
}
template <class T>
VF_FN T add_slope(T h, T eps, T slope) {
  return math::fma(h, unless_zero(h, eps), slope);
}
// e^(v/2), which that sum is then multiplied by.
template <class T>
VF_FN T root_for(T slope, T root) {
  return unless_zero(slope, root);
}

// Gradients of log N(z; m, e^v) at samples z = m + e^(v/2) eps, which are held: the sums over the
// samples, each with its factor c.
template <class T>
struct Score {
  T linear;  // of c eps
  T excess;  // of c (eps^2 - 1)

  // Of a sample: what arrives from above, its weight, and its noise.
  VF_FN void add(T g, T weight, T given_eps) {
    const T c = g * unless_zero(g, weight);
    const T eps = unless_zero(c, given_eps);
    linear = math::fma(c, eps, linear);
    excess = math::fma(c, math::fma(eps, eps, T(-1.0f)), excess);
  }
  VF_FN T grad_mean(T v) const { return unless_zero(linear, math::exp(T(-0.5f) * v)) * linear; }
  VF_FN T grad_logvar() const { return T(0.5f) * excess; }
};

}  // namespace vae_fast::VF_ISA
