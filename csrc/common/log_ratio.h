// log N(z; p_m, e^p_v) - log N(z; m, e^v) at z = m + e^(v/2) eps, and its gradients:
// (eps^2 + v - (z - p_m)^2 e^-p_v - p_v) / 2.
#pragma once

#include "common/gaussian.h"

namespace vae_fast::VF_ISA {

// At a z. All gradients are times g, the upstream one.
template <class T>
struct RatioAt {
  T difference;  // z - p_m
  T scaled;      // (z - p_m) e^-p_v

  VF_FN T grad_z(T grad_z, T g) const { return math::fma(-g, unless_zero(g, scaled), grad_z); }
  // With the posterior's density by z too: ratio = eps e^(-v/2).
  VF_FN T grad_path(T grad_z, T g, T ratio) const {
    return math::fma(g, unless_zero(g, ratio - scaled), grad_z);
  }
  VF_FN T grad_prior_mean(T g) const { return g * unless_zero(g, scaled); }
  VF_FN T grad_prior_logvar(T g) const {
    return T(0.5f) * g * unless_zero(g, math::fma(difference, scaled, T(-1.0f)));
  }
};

template <class T, bool kGeneral>
struct LogRatio;

template <class T>
struct LogRatio<T, false> {
  T v;

  LogRatio() = default;
  VF_FN LogRatio(T v) : v(v) {}
  VF_FN RatioAt<T> at(T z) const { return {z, z}; }
  VF_FN T value(T z, T eps) const { return T(0.5f) * (math::fma(eps, eps, v) - z * z); }
};

template <class T>
struct LogRatio<T, true> {
  T v;  // v - p_v
  T p_m, p_precision;

  LogRatio() = default;
  VF_FN LogRatio(T v, T p_m, T p_v) : v(v - p_v), p_m(p_m), p_precision(math::exp(-p_v)) {}
  VF_FN RatioAt<T> at(T z) const { return {z - p_m, (z - p_m) * p_precision}; }
  VF_FN T value(T z, T eps) const {
    const RatioAt<T> r = at(z);
    return T(0.5f) * (math::fma(eps, eps, v) - r.difference * r.scaled);
  }
};

}  // namespace vae_fast::VF_ISA
