#include "cpu/isa.h"
#include "cpu/random.h"
#include "cpu/sink.h"

namespace vae_fast::VF_ISA {
namespace {

template <class T>
void run(const NoiseArgs& args, int threads) {
  const Tiling tiling(args.shape);
  const int64_t plane = args.shape.rows * args.shape.cols;
  for_each_tile(tiling, threads, false, [&](const Tile& tile, int64_t) {
    NoiseBuffer<T> buffer;
    for (int64_t sample = 0; sample < args.samples; ++sample) {
      const T* eps = make_noise(args.noise, args.shape, sample, tile, buffer);
      with_element(args.eps.dtype, args.eps.data,
                   [&](auto* p) { narrow_run(eps, p + sample * plane + tile.start, tile.count); });
    }
  });
}

}  // namespace

void noise(const NoiseArgs& args, int threads, bool wide) {
  wide ? run<double>(args, threads) : run<float>(args, threads);
}

}  // namespace vae_fast::VF_ISA
