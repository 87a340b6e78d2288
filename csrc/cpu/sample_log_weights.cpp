#include "common/log_ratio.h"
#include "cpu/gaussian_tile.h"
#include "cpu/isa.h"
#include "cpu/random.h"
#include "cpu/sink.h"

namespace vae_fast::VF_ISA {
namespace {

// What of a tile its samples share. General: a prior other than N(0, 1).
template <class T, bool General>
class SampledTile {
 public:
  using V = Lanes<T>;
  using Posterior = GaussianTile<Form<T, T, math::Range::any>>;

  SampledTile(const Posterior& in, int count, bool with_inverse) : in_(in) {
    for_each_vector<T>(count, [&](int i, int lanes) VF_INLINE {
      const V v = in.logvar(i, lanes);
      // As sample_kl has it, so that both draw the same bits.
      V root;
      if constexpr (General) {
        root = math::exp(V(T(0.5)) * v);
      } else {
        root = math::exp_half(v).root;
      }
      put(root_.data + i, lanes, root);
      if (with_inverse) put(inverse_.data + i, lanes, math::exp(V(T(-0.5)) * v));
      if constexpr (General) {
        const LogRatio<V, true> ratio(v, in.prior_mean(i, lanes), in.prior_logvar(i, lanes));
        put(excess_.data + i, lanes, ratio.v);
        put(precision_.data + i, lanes, ratio.p_precision);
      } else {
        put(excess_.data + i, lanes, v);
      }
    });
  }
  SampledTile(const SampledTile&) = delete;
  SampledTile& operator=(const SampledTile&) = delete;

  VF_FN V root(int i, int lanes) const { return get(root_.data + i, lanes); }
  VF_FN V inverse(int i, int lanes) const { return get(inverse_.data + i, lanes); }
  VF_FN V z(int i, int lanes, V eps) const {
    return math::fma(root(i, lanes), eps, get(in_.mean + i, lanes));
  }
  VF_FN LogRatio<V, General> ratio(int i, int lanes) const {
    LogRatio<V, General> ratio;
    ratio.v = get(excess_.data + i, lanes);
    if constexpr (General) {
      ratio.p_m = in_.prior_mean(i, lanes);
      ratio.p_precision = get(precision_.data + i, lanes);
    }
    return ratio;
  }

 private:
  const Posterior& in_;
  Buffer<T> root_, inverse_;  // e^(v/2), e^(-v/2)
  Buffer<T> excess_;          // v - p_v
  Buffer<T> precision_;       // e^-p_v
};

template <class T, bool General>
void forward(const SampleLogWeightsArgs& args, int threads) {
  const Shape shape = args.shape;
  const Tiling tiling(shape, args.samples), sampled({args.samples * shape.rows, shape.cols});
  Sink<T> z(args.z, sampled), log_ratio(args.log_ratio, sampled);
  for_each_tile(tiling, threads, false, [&](const Tile& tile, int64_t group) {
    Buffer<T> z_buffer, ratios;
    NoiseBuffer<T> noise;
    const typename SampledTile<T, General>::Posterior in(args.inputs, tile);
    const SampledTile<T, General> shared(in, tile.count, false);
    for (int64_t sample = 0; sample < args.samples; ++sample) {
      const T* eps = noise_of(args, sample, tile, noise);
      const Tile place = tiling.of_sample(tile, sample);
      const Target<T> to = z.target(place, z_buffer.data);
      for_each_vector<T>(tile.count, [&](int i, int lanes) VF_INLINE {
        const Lanes<T> e = get(eps + i, lanes), at = shared.z(i, lanes, e);
        to.put(i, lanes, at);
        put(ratios.data + i, lanes, shared.ratio(i, lanes).value(at, e));
      });
      z.take(place, group, to.at);
      log_ratio.take(place, group, ratios.data);
    }
  });
  z.finish();
  log_ratio.finish();
}

// Sums over a tile's samples.
template <class T>
struct SampleSums {
  Buffer<T> path, slope;               // of h and of h eps
  Buffer<T> upstream;                  // of grad_log_ratio
  Buffer<T> prior_mean, prior_logvar;  // of their gradients
};

template <class T>
VF_FN void add(Buffer<T>& sums, int i, int lanes, Lanes<T> value, bool first) {
  put(sums.data + i, lanes, first ? value : get(sums.data + i, lanes) + value);
}

template <class T, bool General>
void backward(const SampleLogWeightsBackwardArgs& args, int threads) {
  using V = Lanes<T>;
  const int64_t cols = args.shape.cols;
  const bool with_ratio = args.grad_log_ratio.data != nullptr;
  const bool with_weight = args.path_weight.data != nullptr;
  const Tiling tiling(args.shape, args.samples);
  GaussianSinks<T> sinks(args.gradients, tiling);
  for_each_tile(tiling, threads, sinks.by_column(), [&](const Tile& tile, int64_t group) {
    Buffer<T> grad_buffer, ratio_buffer, weight_buffer, outputs[4];
    NoiseBuffer<T> noise;
    SampleSums<T> sums;
    const typename SampledTile<T, General>::Posterior in(args.inputs, tile);
    const SampledTile<T, General> shared(in, tile.count, args.path_only);
    for (int64_t sample = 0; sample < args.samples; ++sample) {
      const bool first = sample == 0;
      const Tile place = tiling.of_sample(tile, sample);
      const T* eps = noise_of(args, sample, tile, noise);
      const T *grad_z = nullptr, *grad_ratio = nullptr, *weight = nullptr;
      if (args.grad_z.data != nullptr)
        grad_z = read(args.grad_z, place.start, place.count, grad_buffer.data);
      if (with_ratio) grad_ratio = read_rows(args.grad_log_ratio, place, cols, ratio_buffer.data);
      if (with_weight) weight = read_rows(args.path_weight, place, cols, weight_buffer.data);
      for_each_vector<T>(tile.count, [&](int i, int lanes) VF_INLINE {
        const V e = get(eps + i, lanes);
        V h = grad_z ? get(grad_z + i, lanes) : V(T(0));
        if (grad_ratio) {
          const V g = get(grad_ratio + i, lanes);
          const RatioAt<V> at = shared.ratio(i, lanes).at(shared.z(i, lanes, e));
          h = args.path_only ? at.grad_path(h, g, e * shared.inverse(i, lanes)) : at.grad_z(h, g);
          if (!args.path_only) add(sums.upstream, i, lanes, g, first);
          if constexpr (General) {
            add(sums.prior_mean, i, lanes, at.grad_prior_mean(g), first);
            add(sums.prior_logvar, i, lanes, at.grad_prior_logvar(g), first);
          }
        }
        if (weight) {
          const V share = get(weight + i, lanes);
          h = share * unless_zero(share, h);
        }
        add(sums.path, i, lanes, h, first);
        put(sums.slope.data + i, lanes,
            first ? slope_of(h, e) : add_slope(h, e, get(sums.slope.data + i, lanes)));
      });
    }
    Sink<T>* sink[4] = {&sinks.mean, &sinks.logvar, &sinks.prior_mean, &sinks.prior_logvar};
    Target<T> to[4];
    for (int k = 0; k < 4; ++k) to[k] = sink[k]->target(tile, outputs[k].data);
    for_each_vector<T>(tile.count, [&](int i, int lanes) VF_INLINE {
      if (sinks.mean.wanted()) to[0].put(i, lanes, get(sums.path.data + i, lanes));
      if (sinks.logvar.wanted()) {
        V slope = get(sums.slope.data + i, lanes);
        slope = root_for(slope, shared.root(i, lanes)) * slope;
        if (with_ratio && !args.path_only) slope = slope + get(sums.upstream.data + i, lanes);
        to[1].put(i, lanes, in.gate_logvar(i, lanes, V(T(0.5)) * slope));
      }
      if constexpr (General) {
        const V nothing(T(0));
        if (sinks.prior_mean.wanted())
          to[2].put(i, lanes, with_ratio ? get(sums.prior_mean.data + i, lanes) : nothing);
        if (sinks.prior_logvar.wanted()) {
          const V sum = with_ratio ? get(sums.prior_logvar.data + i, lanes) : nothing;
          to[3].put(i, lanes, in.gate_prior_logvar(i, lanes, sum));
        }
      }
    });
    for (int k = 0; k < 4; ++k)
      if (sink[k]->wanted()) sink[k]->take(tile, group, to[k].at);
  });
  sinks.finish();
}

template <class T>
void forward(const SampleLogWeightsArgs& args, int threads) {
  is_standard(args.inputs) ? forward<T, false>(args, threads) : forward<T, true>(args, threads);
}

template <class T>
void backward(const SampleLogWeightsBackwardArgs& args, int threads) {
  is_standard(args.inputs) ? backward<T, false>(args, threads) : backward<T, true>(args, threads);
}

}  // namespace

void sample_log_weights_forward(const SampleLogWeightsArgs& args, int threads, bool wide) {
  wide ? forward<double>(args, threads) : forward<float>(args, threads);
}

void sample_log_weights_backward(const SampleLogWeightsBackwardArgs& args, int threads, bool wide) {
  wide ? backward<double>(args, threads) : backward<float>(args, threads);
}

}  // namespace vae_fast::VF_ISA
