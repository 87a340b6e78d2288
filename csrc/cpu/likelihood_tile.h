// A tile of the decoder side: the log-density of x, and its gradients.
#pragma once

#include "common/gaussian.h"
#include "cpu/form.h"
#include "cpu/kernels.h"
#include "cpu/sink.h"

namespace vae_fast::VF_ISA {

template <class T>
struct LikelihoodSinks {
  Sink<T> x, mean, logvar;

  LikelihoodSinks(const LikelihoodGradients& out, const Tiling& tiling)
      : x(out.x, tiling), mean(out.mean, tiling), logvar(out.logvar, tiling) {}
  bool by_column() const { return x.by_column() || mean.by_column() || logvar.by_column(); }
  void finish() const {
    x.finish();
    mean.finish();
    logvar.finish();
  }
};

// A form whose x has elements of X_.
template <class Form, class X_>
struct LikelihoodForm : Form {
  using X = X_;
};

// f(form) with the form for these tensors. x may be another than a mean and a log-variance in half
// precision allow for, as mixed precision leaves it in float32, or one that samples share: it is
// read as float then. A loss on large tensors takes a third less time than with all three through
// buffers (AMD Zen 5).
template <class F>
void with_form(bool wide, const LikelihoodInputs& in, const LikelihoodGradients& out, F&& f) {
  const bool alike = in.x.dims == 0 && in.x.dtype == in.mean.dtype;
  with_form(wide, in.bounds, true, {&in.mean, &in.logvar}, {&out.x, &out.mean, &out.logvar},
            [&](auto form) {
              using Form = decltype(form);
              if constexpr (kIsHalf<typename Form::S>) {
                if (!alike) return f(LikelihoodForm<Form, float>{});
              }
              f(LikelihoodForm<Form, typename Form::S>{});
            });
}

// Of a row of so many elements, from the sum of their deviances.
inline double log_likelihood(double deviance, int64_t count) {
  return -0.5 * (static_cast<double>(count) * LogDensity<double>::kLogTwoPi + deviance);
}

template <class Form>
class LikelihoodTile {
  using T = typename Form::T;
  using S = typename Form::S;
  using X = typename Form::X;

 public:
  LikelihoodTile(const LikelihoodInputs& in, const Tile& tile)
      : count_(tile.count),
        x_at_(read(in.x, tile.start, tile.count, x_.data)),
        mean_at_(read(in.mean, tile.start, tile.count, mean_.data)),
        logvar_at_(in.logvar.data ? read(in.logvar, tile.start, tile.count, logvar_.data)
                                  : nullptr),
        bounds_{Lanes<T>(static_cast<T>(in.bounds.low)), Lanes<T>(static_cast<T>(in.bounds.high))} {
  }
  LikelihoodTile(const LikelihoodTile&) = delete;
  LikelihoodTile& operator=(const LikelihoodTile&) = delete;

  // (x - mean)^2 at each element.
  void squares(T* value) const {
    for_each_vector<T>(count_, [&](int i, int lanes) VF_INLINE {
      put(value + i, lanes, squared_error(get(x_at_ + i, lanes), get(mean_at_ + i, lanes)));
    });
  }

  // The log-density's deviance at each element into deviance, where given; and the gradients, times
  // g (one for all elements) or times g_at (one each), where sinks are. any_zero: whether one of
  // these is 0.
  void run(T* deviance, T g, const T* g_at, bool any_zero, const Tile& tile, int64_t group,
           LikelihoodSinks<T>* sinks) const {
    Buffer<S> buffers[3];
    Sink<T>* sink[3] = {};
    Target<S> to[3];
    if (sinks != nullptr) {
      Sink<T>* all[3] = {&sinks->x, &sinks->mean, &sinks->logvar};
      for (int k = 0; k < 3; ++k) {
        if (!all[k]->wanted()) continue;
        sink[k] = all[k];
        to[k] = all[k]->template target<S>(tile, buffers[k].data);
      }
    }
    // Without a log-variance there is nothing to exponentiate.
    const X* const x_at = x_at_;
    const S *const mean_at = mean_at_, *const logvar_at = logvar_at_;
    const Bounds<Lanes<T>> bounds = bounds_;
    const auto loop = [&](auto learned, auto may_be_zero) VF_INLINE {
      for_each_vector<T>(count_, [&](int i, int lanes) VF_INLINE {
        Lanes<T> raw(T(0)), v(T(0)), precision(T(1));
        if constexpr (decltype(learned)::value) {
          raw = get(logvar_at + i, lanes);
          v = bounds.clamp(raw);
          precision = math::exp<Form::kRange>(-v);
        }
        const LogDensity<Lanes<T>, decltype(may_be_zero)::value> density(
            get(x_at + i, lanes), get(mean_at + i, lanes), v, precision);
        if (deviance) put(deviance + i, lanes, density.deviance());
        const Lanes<T> scale = g_at ? get(g_at + i, lanes) : Lanes<T>(g);
        if (to[0]) to[0].put(i, lanes, -density.grad_mean(scale));
        if (to[1]) to[1].put(i, lanes, density.grad_mean(scale));
        if (to[2]) {
          const Lanes<T> gradient = density.grad_logvar(scale);
          to[2].put(i, lanes, bounds.gate(raw, v, gradient));
        }
      });
    };
    const auto choose = [&](auto learned) VF_INLINE {
      any_zero ? loop(learned, std::true_type{}) : loop(learned, std::false_type{});
    };
    logvar_at_ ? choose(std::true_type{}) : choose(std::false_type{});
    if constexpr (std::is_same_v<S, T>) {
      for (int k = 0; k < 3; ++k)
        if (sink[k] != nullptr) sink[k]->take(tile, group, to[k].at);
    }
  }

 private:
  Buffer<X> x_;
  Buffer<S> mean_, logvar_;
  int count_;
  const X* x_at_;
  const S* mean_at_;
  const S* logvar_at_;  // null: unit variance
  Bounds<Lanes<T>> bounds_;
};

}  // namespace vae_fast::VF_ISA
