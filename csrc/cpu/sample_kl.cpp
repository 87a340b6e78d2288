#include "cpu/gaussian_tile.h"
#include "cpu/isa.h"
#include "cpu/random.h"
#include "cpu/sink.h"

namespace vae_fast::VF_ISA {
namespace {

template <class T>
void forward(const SampleKLArgs& args, int threads) {
  const Tiling tiling(args.shape);
  const int64_t plane = args.shape.rows * args.shape.cols;
  Sink<T> kl(args.kl, tiling);
  for_each_tile(tiling, threads, false, [&](const Tile& tile, int64_t group) {
    Buffer<T> root_buffer, buffer;
    const GaussianTile<T> in(args.inputs, tile);
    T* root = root_buffer.data;
    in.template forward<true>(root, buffer.data);
    kl.take(tile, group, buffer.data);

    NoiseBuffer<T> noise;
    for (int64_t sample = 0; sample < args.samples; ++sample) {
      const int64_t start = sample * plane + tile.start;
      const T* eps = args.eps.data ? read(args.eps, start, tile.count, buffer.data)
                                   : make_noise(args.noise, args.shape, sample, tile, noise);
      const bool in_place = args.z.dtype == kDTypeOf<T>;
      T* z = in_place ? static_cast<T*>(args.z.data) + start : buffer.data;
      for_each_vector<T>(tile.count, [&](int i, int lanes) VF_INLINE {
        put(z + i, lanes,
            math::fma(get(root + i, lanes), get(eps + i, lanes), get(in.mean + i, lanes)));
      });
      if (!in_place) {
        with_element(args.z.dtype, args.z.data,
                     [&](auto* p) { narrow_run(z, p + start, tile.count); });
      }
    }
  });
  kl.finish();
}

template <class T>
void backward(const SampleKLBackwardArgs& args, int threads) {
  const Tiling tiling(args.shape);
  const int64_t plane = args.shape.rows * args.shape.cols;
  GaussianSinks<T> sinks(args.gradients, tiling);
  for_each_tile(tiling, threads, sinks.by_column(), [&](const Tile& tile, int64_t group) {
    Buffer<T> sum_buffer, product_buffer, eps_buffer, grad_buffer;
    NoiseBuffer<T> noise;
    T* sum = nullptr;      // over the samples, of grad_z
    T* product = nullptr;  // over the samples, of grad_z * eps
    if (args.grad_z.data != nullptr) {
      sum = sum_buffer.data;
      product = product_buffer.data;
      for (int64_t sample = 0; sample < args.samples; ++sample) {
        const int64_t start = sample * plane + tile.start;
        const T* grad = read(args.grad_z, start, tile.count, grad_buffer.data);
        const T* eps = args.eps.data ? read(args.eps, start, tile.count, eps_buffer.data)
                                     : make_noise(args.noise, args.shape, sample, tile, noise);
        for_each_vector<T>(tile.count, [&](int i, int lanes) VF_INLINE {
          const Lanes<T> g = get(grad + i, lanes), e = get(eps + i, lanes);
          const Lanes<T> zero(0.0f);
          put(sum + i, lanes, sample ? get(sum + i, lanes) + g : g);
          put(product + i, lanes, math::fma(g, e, sample ? get(product + i, lanes) : zero));
        });
      }
    }
    const GaussianTile<T> in(args.inputs, tile);
    in.backward(args.grad_kl, args.shape, tile, group, sum, product, sinks);
  });
  sinks.finish();
}

}  // namespace

void sample_kl_forward(const SampleKLArgs& args, int threads, bool wide) {
  wide ? forward<double>(args, threads) : forward<float>(args, threads);
}

void sample_kl_backward(const SampleKLBackwardArgs& args, int threads, bool wide) {
  wide ? backward<double>(args, threads) : backward<float>(args, threads);
}

}  // namespace vae_fast::VF_ISA
