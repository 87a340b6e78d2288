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

// f(form) with the form for these tensors.
template <class F>
void with_form(bool wide, const LikelihoodInputs& in, const LikelihoodGradients& out, F&& f) {
  with_form(wide, in.bounds, true, {&in.x, &in.mean, &in.logvar}, {&out.x, &out.mean, &out.logvar},
            f);
}

// Of a row of so many elements, from the sum of their deviances.
inline double log_likelihood(double deviance, int64_t count) {
  return -0.5 * (static_cast<double>(count) * LogDensity<double>::kLogTwoPi + deviance);
}

template <class Form>
class LikelihoodTile {
  using T = typename Form::T;
  using S = typename Form::S;

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
  // g (one for all elements) or times g_at (one each), where sinks are.
  void run(T* deviance, T g, const T* g_at, const Tile& tile, int64_t group,
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
    const auto loop = [&](auto learned) VF_INLINE {
      for_each_vector<T>(count_, [&](int i, int lanes) VF_INLINE {
        Lanes<T> raw(T(0)), v(T(0)), precision(T(1));
        if constexpr (decltype(learned)::value) {
          raw = get(logvar_at_ + i, lanes);
          v = bounds_.clamp(raw);
          precision = math::exp<Form::kRange>(-v);
        }
        const LogDensity<Lanes<T>> density(get(x_at_ + i, lanes), get(mean_at_ + i, lanes), v,
                                           precision);
        if (deviance) put(deviance + i, lanes, density.deviance());
        const Lanes<T> scale = g_at ? get(g_at + i, lanes) : Lanes<T>(g);
        if (to[0]) to[0].put(i, lanes, -density.grad_mean(scale));
        if (to[1]) to[1].put(i, lanes, density.grad_mean(scale));
        if (to[2]) {
          const Lanes<T> gradient = density.grad_logvar(Lanes<T>(T(0.5)) * scale);
          to[2].put(i, lanes, bounds_.gate(raw, v, gradient));
        }
      });
    };
    logvar_at_ ? loop(std::true_type{}) : loop(std::false_type{});
    if constexpr (std::is_same_v<S, T>) {
      for (int k = 0; k < 3; ++k)
        if (sink[k] != nullptr) sink[k]->take(tile, group, to[k].at);
    }
  }

 private:
  Buffer<S> x_, mean_, logvar_;
  int count_;
  const S* x_at_;
  const S* mean_at_;
  const S* logvar_at_;  // null: unit variance
  Bounds<Lanes<T>> bounds_;
};

}  // namespace vae_fast::VF_ISA
