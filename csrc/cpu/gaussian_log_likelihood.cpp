#include "cpu/isa.h"
#include "cpu/likelihood_tile.h"

namespace vae_fast::VF_ISA {
namespace {

template <class T>
void forward(const LogLikelihoodArgs& args, int threads) {
  const Tiling tiling(args.shape);
  Sink<T> log_likelihood(args.log_likelihood, tiling);
  for_each_tile(tiling, threads, false, [&](const Tile& tile, int64_t group) {
    Buffer<T> value;
    const LikelihoodTile<T> in(args.inputs, tile);
    in.run(value.data, T(0), nullptr, tile, group, nullptr);
    log_likelihood.take(tile, group, value.data);
  });
  log_likelihood.finish();
}

template <class T>
void backward(const LogLikelihoodBackwardArgs& args, int threads) {
  const Tiling tiling(args.shape);
  LikelihoodSinks<T> sinks(args.gradients, tiling);
  for_each_tile(tiling, threads, sinks.by_column(), [&](const Tile& tile, int64_t group) {
    Buffer<T> rows;
    const T* g = read_rows(args.grad, tile, args.shape.cols, rows.data);
    const LikelihoodTile<T> in(args.inputs, tile);
    in.run(nullptr, T(0), g, tile, group, &sinks);
  });
  sinks.finish();
}

}  // namespace

void gaussian_log_likelihood_forward(const LogLikelihoodArgs& args, int threads, bool wide) {
  wide ? forward<double>(args, threads) : forward<float>(args, threads);
}

void gaussian_log_likelihood_backward(const LogLikelihoodBackwardArgs& args, int threads,
                                      bool wide) {
  wide ? backward<double>(args, threads) : backward<float>(args, threads);
}

}  // namespace vae_fast::VF_ISA
