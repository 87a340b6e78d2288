// A tile of the encoder side: the Gaussian, its prior, and the values and gradients of its KL.
#pragma once

#include "common/gaussian.h"
#include "cpu/form.h"
#include "cpu/kernels.h"
#include "cpu/sink.h"

namespace vae_fast::VF_ISA {

template <class T>
struct GaussianSinks {
  Sink<T> mean, logvar, prior_mean, prior_logvar;

  GaussianSinks(const GaussianGradients& out, const Tiling& tiling)
      : mean(out.mean, tiling),
        logvar(out.logvar, tiling),
        prior_mean(out.prior_mean, tiling),
        prior_logvar(out.prior_logvar, tiling) {}
  bool by_column() const {
    return mean.by_column() || logvar.by_column() || prior_mean.by_column() ||
           prior_logvar.by_column();
  }
  void finish() const {
    mean.finish();
    logvar.finish();
    prior_mean.finish();
    prior_logvar.finish();
  }
};

// The upstream gradient and the noise of a tile's last sample, and what the samples before it have
// added up to.
template <class T, class S>
struct ThroughSample {
  const S* grad = nullptr;  // null: nothing arrives through z
  const T* eps = nullptr;
  const T* sum = nullptr;      // over the earlier samples, of grad; null: there are none
  const T* product = nullptr;  // and of grad * eps
};

// Free bits, of the KL at each element.
template <class T>
inline void raise_to_floor(const KLControl& control, T* kl, int count) {
  if (!(control.floor > -__builtin_inf())) return;
  const Lanes<T> floor(static_cast<T>(control.floor));
  for_each_vector<T>(count, [&](int i, int lanes) VF_INLINE {
    put(kl + i, lanes, with_floor(get(kl + i, lanes), floor));
  });
}

// What arrives for the KL of each element: for its row's and for its column's. Null: nothing does.
// may_be_zero: whether it is 0 somewhere; of a sum it is not known.
template <class T>
inline const T* upstream_of(const KLUpstream& given, Shape shape, const Tile& tile, T* buffer,
                            bool& may_be_zero) {
  may_be_zero = given.dims.data != nullptr;
  if (given.kl.data != nullptr) {
    bool any_zero;
    read_rows(given.kl, tile, shape.cols, buffer, T(1), any_zero);
    may_be_zero |= any_zero;
  } else if (given.dims.data != nullptr) {
    for (int i = 0; i < tile.count; ++i) buffer[i] = 0;
  } else {
    return nullptr;
  }
  if (given.dims.data != nullptr) add_columns(given.dims, tile, shape.cols, buffer);
  return buffer;
}

// Whether the prior is N(0, 1).
inline bool is_standard(const GaussianInputs& in) {
  return in.prior_mean.data == nullptr && in.prior_logvar.data == nullptr;
}

// Half precision in place is for the standard prior alone: another is rare, and its loops are long.
template <class Form>
class GaussianTile {
  using T = typename Form::T;
  using S = typename Form::S;
  static constexpr bool kGeneral = std::is_same_v<S, T>;

 public:
  const S* mean;

  GaussianTile(const GaussianInputs& in, const Tile& tile)
      : mean(read(in.mean, tile.start, tile.count, mean_.data)),
        count_(tile.count),
        bounds_{Lanes<T>(static_cast<T>(in.bounds.low)), Lanes<T>(static_cast<T>(in.bounds.high))},
        logvar_at_(read(in.logvar, tile.start, tile.count, logvar_.data)),
        standard_(!kGeneral || is_standard(in)),
        has_prior_logvar_(in.prior_logvar.data != nullptr) {
    if (standard_) return;
    prior_mean_at_ = read_prior(in.prior_mean, tile, prior_mean_);
    prior_logvar_at_ = read_prior(in.prior_logvar, tile, prior_logvar_);
  }
  GaussianTile(const GaussianTile&) = delete;
  GaussianTile& operator=(const GaussianTile&) = delete;

  // One vector. Log-variances are clamped; the gates are the clamp's gradient.
  VF_FN Lanes<T> logvar(int i, int lanes) const {
    return bounds_.clamp(get(logvar_at_ + i, lanes));
  }
  VF_FN Lanes<T> prior_mean(int i, int lanes) const { return get(prior_mean_at_ + i, lanes); }
  VF_FN Lanes<T> prior_logvar(int i, int lanes) const {
    // Without a prior_logvar there is none to clamp.
    const Lanes<T> raw = get(prior_logvar_at_ + i, lanes);
    return has_prior_logvar_ ? bounds_.clamp(raw) : raw;
  }
  VF_FN Lanes<T> gate_logvar(int i, int lanes, Lanes<T> gradient) const {
    return bounds_.gate(get(logvar_at_ + i, lanes), logvar(i, lanes), gradient);
  }
  VF_FN Lanes<T> gate_prior_logvar(int i, int lanes, Lanes<T> gradient) const {
    return bounds_.gate(get(prior_logvar_at_ + i, lanes), prior_logvar(i, lanes), gradient);
  }

  // The KL at each element.
  void forward(T* kl) const {
    run_forward<false>(kl, [](int, int, Lanes<T>) VF_INLINE {});
  }

  // The same and, as take(i, lanes, root), the standard deviation.
  template <class F>
  void forward(T* kl, F&& take) const {
    run_forward<true>(kl, take);
  }

  // Gradients of what arrives for the KL, and of what comes through z.
  void backward(const KLUpstream& upstream, Shape shape, const Tile& tile, int64_t group,
                const ThroughSample<T, S>& z, GaussianSinks<T>& sinks) const {
    Buffer<T> upstream_buffer;
    Buffer<S> buffers[4];
    bool may_be_zero;
    const T* g_kl = upstream_of(upstream, shape, tile, upstream_buffer.data, may_be_zero);
    Sink<T>* sink[4] = {&sinks.mean, &sinks.logvar, &sinks.prior_mean, &sinks.prior_logvar};
    // Not past the caches: these loops wait for arithmetic, and choosing would cost a backward pass
    // of sample_kl 6 % (AMD Zen 5).
    S* to[4];  // null: not wanted
    for (int k = 0; k < 4; ++k) to[k] = sink[k]->template target<S>(tile, buffers[k].data).at;

    const KLControl& control = upstream.control;
    if (control.floor > -__builtin_inf() || control.posterior_weight != 1.0 ||
        control.prior_weight != 1.0) {
      run_backward<true, true>(g_kl, control, z, to);
    } else if (may_be_zero) {
      run_backward<false, true>(g_kl, control, z, to);
    } else {
      run_backward<false, false>(g_kl, control, z, to);
    }
    if constexpr (std::is_same_v<S, T>) {
      for (int k = 0; k < 4; ++k)
        if (sink[k]->wanted()) sink[k]->take(tile, group, to[k]);
    }
  }

 private:
  static const T* read_prior(const Operand& prior, const Tile& tile, Buffer<T>& buffer) {
    if (prior.data != nullptr) return read(prior, tile.start, tile.count, buffer.data);
    for (int i = 0; i < tile.count; ++i) buffer.data[i] = 0;
    return buffer.data;
  }

  template <bool Sample, class F>
  VF_FN void run_forward(T* kl, F&& take) const {
    if (standard_) {
      const S *const mean_at = mean, *const logvar_at = logvar_at_;
      const Bounds<Lanes<T>> bounds = bounds_;
      for_each_vector<T>(count_, [&](int i, int lanes) VF_INLINE {
        const Lanes<T> v = bounds.clamp(get(logvar_at + i, lanes));
        Lanes<T> expm1_minus;
        if constexpr (Sample) {
          const auto e = math::exp_half<Form::kRange>(v);
          take(i, lanes, e.root);
          expm1_minus = e.expm1_minus;
        } else {
          expm1_minus = math::expm1<Form::kRange>(v).expm1_minus;
        }
        put(kl + i, lanes, StandardKL<Lanes<T>>::value(get(mean_at + i, lanes), expm1_minus));
      });
      return;
    }
    if constexpr (kGeneral) {
      for_each_vector<T>(count_, [&](int i, int lanes) VF_INLINE {
        const Lanes<T> v = bounds_.clamp(get(logvar_at_ + i, lanes));
        if constexpr (Sample) take(i, lanes, math::exp<Form::kRange>(Lanes<T>(T(0.5)) * v));
        put(kl + i, lanes, general(i, lanes, v).value());
      });
    }
  }

  // Controlled: the KL has a floor or its gradients have weights. MayBeZero: what arrives for it.
  template <bool Controlled, bool MayBeZero>
  void run_backward(const T* g_kl, const KLControl& control, const ThroughSample<T, S> z,
                    S* const (&to)[4]) const {
    const S *const mean_at = mean, *const logvar_at = logvar_at_;
    const Bounds<Lanes<T>> bounds = bounds_;
    const Lanes<T> floor(static_cast<T>(control.floor));
    const Lanes<T> to_posterior(static_cast<T>(control.posterior_weight));
    const Lanes<T> to_prior(static_cast<T>(control.prior_weight));
    const bool with_kl = g_kl != nullptr;
    using KL = StandardKL<Lanes<T>, MayBeZero>;
    if (standard_) {
      for_each_vector<T>(count_, [&](int i, int lanes) VF_INLINE {
        const Lanes<T> raw = get(logvar_at + i, lanes);
        const Lanes<T> v = bounds.clamp(raw), m = get(mean_at + i, lanes);
        const auto e = math::exp_half<Form::kRange>(v);
        Lanes<T> g = with_kl ? get(g_kl + i, lanes) : Lanes<T>(T(0));
        if constexpr (Controlled) {
          const Lanes<T> kl = KL::value(m, e.expm1_minus);
          g = to_posterior * above_floor(kl, floor, g);
        }
        const Lanes<T> g_mean = KL::grad_mean(g, m);
        const Lanes<T> g_logvar = KL::grad_logvar(g, e.expm1);
        write(i, lanes, bounds, raw, v, with_kl, g_mean, g_logvar, e.root, z, to);
      });
      return;
    }
    if constexpr (kGeneral) {
      for_each_vector<T>(count_, [&](int i, int lanes) VF_INLINE {
        const Lanes<T> raw = get(logvar_at + i, lanes), v = bounds.clamp(raw);
        const auto kl = general<MayBeZero>(i, lanes, v);
        Lanes<T> g = with_kl ? get(g_kl + i, lanes) : Lanes<T>(T(0));
        Lanes<T> g_prior = g;
        if constexpr (Controlled) {
          const Lanes<T> above = above_floor(kl.value(), floor, g);
          g = to_posterior * above;
          g_prior = to_prior * above;
        }
        write(i, lanes, bounds, raw, v, with_kl, kl.grad_mean(g), kl.grad_logvar(g),
              math::exp<Form::kRange>(Lanes<T>(T(0.5)) * v), z, to);
        const Lanes<T> nothing(T(0));
        if (to[2] != nullptr)
          put(to[2] + i, lanes, with_kl ? kl.grad_prior_mean(g_prior) : nothing);
        if (to[3] != nullptr) {
          const Lanes<T> gradient = with_kl ? kl.grad_prior_logvar(g_prior) : nothing;
          put(to[3] + i, lanes, gate_prior_logvar(i, lanes, gradient));
        }
      });
    }
  }

  template <bool MayBeZero = true>
  VF_FN GeneralKL<Lanes<T>, MayBeZero> general(int i, int lanes, Lanes<T> v) const {
    return {get(mean + i, lanes), v, prior_mean(i, lanes), prior_logvar(i, lanes)};
  }

  // Adds what comes through z to the gradients of the KL, and writes both. A term whose upstream
  // gradient is absent is left out, not multiplied by zero: it may be infinite.
  VF_FN static void write(int i, int lanes, const Bounds<Lanes<T>>& bounds, Lanes<T> raw,
                          Lanes<T> v, bool with_kl, Lanes<T> g_mean, Lanes<T> g_logvar,
                          Lanes<T> root, const ThroughSample<T, S>& z, S* const (&to)[4]) {
    if (z.grad != nullptr) {
      const Lanes<T> grad = get(z.grad + i, lanes), eps = get(z.eps + i, lanes);
      const Lanes<T> half_root = Lanes<T>(T(0.5)) * root;
      Lanes<T> sum = grad, through_z;
      if (z.sum != nullptr) {
        sum = get(z.sum + i, lanes) + grad;
        const Lanes<T> product = add_slope(grad, eps, get(z.product + i, lanes));
        through_z = root_for(product, half_root) * product;
      } else {  // of one sample what goes on is 0 by one selection
        through_z = unless_zero(grad, half_root * (grad * eps));
      }
      g_mean = with_kl ? g_mean + sum : sum;
      g_logvar = with_kl ? g_logvar + through_z : through_z;
    }
    if (to[0] != nullptr) put(to[0] + i, lanes, g_mean);
    if (to[1] != nullptr) put(to[1] + i, lanes, bounds.gate(raw, v, g_logvar));
  }

  Buffer<S> mean_, logvar_;
  Buffer<T> prior_mean_, prior_logvar_;
  int count_;
  Bounds<Lanes<T>> bounds_;
  const S* logvar_at_;
  bool standard_;
  bool has_prior_logvar_;
  const T* prior_mean_at_ = nullptr;
  const T* prior_logvar_at_ = nullptr;
};

}  // namespace vae_fast::VF_ISA
