#include "cpu/gaussian_tile.h"
#include "cpu/isa.h"
#include "cpu/random.h"
#include "cpu/sink.h"

namespace vae_fast::VF_ISA {
namespace {

template <class Form>
void forward(const SampleKLArgs& args, int threads) {
  using T = typename Form::T;
  using S = typename Form::S;
  const Tiling tiling(args.shape, args.samples);
  const int64_t plane = args.shape.rows * args.shape.cols;
  const bool streams = tiling.streams(args.samples);
  const bool in_place = args.z.dtype == kDTypeOf<S>;
  Sink<T> kl(args.kl, tiling), dims(args.dims, tiling);
  for_each_tile(tiling, threads, dims.by_column(), [&](const Tile& tile, int64_t group) {
    Buffer<T> root_buffer, kl_buffer;
    Buffer<S> z_buffer;
    NoiseBuffer<T> noise;
    T* root = root_buffer.data;
    const GaussianTile<Form> in(args.inputs, tile);
    const S* const mean = in.mean;

    for (int64_t sample = 0; sample < args.samples; ++sample) {
      const T* eps = noise_of(args, sample, tile, noise);
      const int64_t start = sample * plane + tile.start;
      S* z = in_place ? static_cast<S*>(args.z.data) + start : z_buffer.data;
      const auto draw = [&](int i, int lanes, Lanes<T> deviation) VF_INLINE {
        put(z + i, lanes, math::fma(deviation, get(eps + i, lanes), get(mean + i, lanes)));
      };
      if (sample > 0) {
        for_each_vector<T>(
            tile.count, [&](int i, int lanes) VF_INLINE { draw(i, lanes, get(root + i, lanes)); });
      } else if (args.samples > 1) {
        in.forward(kl_buffer.data, [&](int i, int lanes, Lanes<T> deviation) VF_INLINE {
          put(root + i, lanes, deviation);
          draw(i, lanes, deviation);
        });
      } else {
        in.forward(kl_buffer.data, draw);
      }
      if constexpr (std::is_same_v<S, T>) {
        if (!in_place) write_run(z, args.z, start, tile.count, streams);
      }
    }
    raise_to_floor(args.control, kl_buffer.data, tile.count);
    kl.take(tile, group, kl_buffer.data);
    if (dims.wanted()) dims.take(tile, group, kl_buffer.data);
  });
  kl.finish();
  dims.finish();
}

// Makes z's last sample one of the earlier ones.
template <class T, class S>
void add(ThroughSample<T, S>& z, int count, T* sum, T* product) {
  for_each_vector<T>(count, [&](int i, int lanes) VF_INLINE {
    const Lanes<T> g = get(z.grad + i, lanes), e = get(z.eps + i, lanes);
    put(sum + i, lanes, z.sum ? get(sum + i, lanes) + g : g);
    put(product + i, lanes, z.sum ? add_slope(g, e, get(product + i, lanes)) : slope_of(g, e));
  });
  z.sum = sum;
  z.product = product;
}

template <class Form>
void backward(const SampleKLBackwardArgs& args, int threads) {
  using T = typename Form::T;
  using S = typename Form::S;
  const Tiling tiling(args.shape, args.samples);
  const int64_t plane = args.shape.rows * args.shape.cols;
  GaussianSinks<T> sinks(args.gradients, tiling);
  for_each_tile(tiling, threads, sinks.by_column(), [&](const Tile& tile, int64_t group) {
    Buffer<T> sum_buffer, product_buffer;
    Buffer<S> grad_buffer;
    NoiseBuffer<T> noise;
    ThroughSample<T, S> z;
    for (int64_t sample = 0; args.grad_z.data != nullptr && sample < args.samples; ++sample) {
      if (sample > 0) add(z, tile.count, sum_buffer.data, product_buffer.data);
      z.grad = read(args.grad_z, sample * plane + tile.start, tile.count, grad_buffer.data);
      z.eps = noise_of(args, sample, tile, noise);
    }
    const GaussianTile<Form> in(args.inputs, tile);
    in.backward(args.upstream, args.shape, tile, group, z, sinks);
  });
  sinks.finish();
}

}  // namespace

void sample_kl_forward(const SampleKLArgs& args, int threads, bool wide) {
  const GaussianInputs& in = args.inputs;
  with_form(wide, in.bounds, is_standard(in), {&in.mean, &in.logvar}, {&args.z},
            [&](auto form) { forward<decltype(form)>(args, threads); });
}

void sample_kl_backward(const SampleKLBackwardArgs& args, int threads, bool wide) {
  const GaussianInputs& in = args.inputs;
  const GaussianGradients& out = args.gradients;
  with_form(wide, in.bounds, is_standard(in), {&in.mean, &in.logvar, &args.grad_z},
            {&out.mean, &out.logvar, &out.prior_mean, &out.prior_logvar},
            [&](auto form) { backward<decltype(form)>(args, threads); });
}

}  // namespace vae_fast::VF_ISA
