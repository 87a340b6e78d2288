#include "cpu/gaussian_tile.h"
#include "cpu/isa.h"
#include "cpu/sink.h"

namespace vae_fast::VF_ISA {
namespace {

template <class T>
void forward(const GaussianKLArgs& args, int threads) {
  const Tiling tiling(args.shape);
  Sink<T> kl(args.kl, tiling);
  for_each_tile(tiling, threads, false, [&](const Tile& tile, int64_t group) {
    Buffer<T> buffer;
    const GaussianTile<T> in(args.inputs, tile);
    in.forward(buffer.data);
    raise_to_floor(args.control, buffer.data, tile.count);
    kl.take(tile, group, buffer.data);
  });
  kl.finish();
}

template <class T>
void backward(const GaussianKLBackwardArgs& args, int threads) {
  const Tiling tiling(args.shape);
  GaussianSinks<T> sinks(args.gradients, tiling);
  for_each_tile(tiling, threads, sinks.by_column(), [&](const Tile& tile, int64_t group) {
    const GaussianTile<T> in(args.inputs, tile);
    in.backward(args.upstream, args.shape, tile, group, {}, sinks);
  });
  sinks.finish();
}

}  // namespace

void gaussian_kl_forward(const GaussianKLArgs& args, int threads, bool wide) {
  wide ? forward<double>(args, threads) : forward<float>(args, threads);
}

void gaussian_kl_backward(const GaussianKLBackwardArgs& args, int threads, bool wide) {
  wide ? backward<double>(args, threads) : backward<float>(args, threads);
}

}  // namespace vae_fast::VF_ISA
