#include "cpu/isa.h"
#include "cpu/likelihood_tile.h"

namespace vae_fast::VF_ISA {
namespace {

template <class Form>
void forward(const LogLikelihoodArgs& args, int threads) {
  using T = typename Form::T;
  const Tiling tiling(args.shape);
  Sink<T> deviance(args.log_likelihood, tiling, /*own_sums=*/true);
  for_each_tile(tiling, threads, false, [&](const Tile& tile, int64_t group) {
    Buffer<T> value;
    const LikelihoodTile<Form> in(args.inputs, tile);
    in.run(value.data, T(0), nullptr, false, tile, group, nullptr);
    deviance.take(tile, group, value.data);
  });
  for (int64_t row = 0; row < args.shape.rows; ++row)
    set(args.log_likelihood, row, log_likelihood(deviance.row_sum(row), args.shape.cols));
}

template <class Form>
void backward(const LogLikelihoodBackwardArgs& args, int threads) {
  using T = typename Form::T;
  const Tiling tiling(args.shape);
  LikelihoodSinks<T> sinks(args.gradients, tiling);
  for_each_tile(tiling, threads, sinks.by_column(), [&](const Tile& tile, int64_t group) {
    Buffer<T> rows;
    bool any_zero;
    const T* g = read_rows(args.grad, tile, args.shape.cols, rows.data, T(args.scale), any_zero);
    const LikelihoodTile<Form> in(args.inputs, tile);
    in.run(nullptr, T(0), g, any_zero, tile, group, &sinks);
  });
  sinks.finish();
}

}  // namespace

void gaussian_log_likelihood_forward(const LogLikelihoodArgs& args, int threads, bool wide) {
  with_form(wide, args.inputs, {}, [&](auto form) { forward<decltype(form)>(args, threads); });
}

void gaussian_log_likelihood_backward(const LogLikelihoodBackwardArgs& args, int threads,
                                      bool wide) {
  with_form(wide, args.inputs, args.gradients,
            [&](auto form) { backward<decltype(form)>(args, threads); });
}

}  // namespace vae_fast::VF_ISA
