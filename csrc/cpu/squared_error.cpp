#include "cpu/isa.h"
#include "cpu/likelihood_tile.h"

namespace vae_fast::VF_ISA {
namespace {

template <class Form>
void forward(const LogLikelihoodArgs& args, int threads) {
  using T = typename Form::T;
  const Tiling tiling(args.shape);
  Sink<T> squared_error(args.log_likelihood, tiling);
  for_each_tile(tiling, threads, false, [&](const Tile& tile, int64_t group) {
    Buffer<T> value;
    const LikelihoodTile<Form> in(args.inputs, tile);
    in.squares(value.data);
    squared_error.take(tile, group, value.data);
  });
  squared_error.finish();
}

}  // namespace

void squared_error_forward(const LogLikelihoodArgs& args, int threads, bool wide) {
  with_form(wide, args.inputs, {}, [&](auto form) { forward<decltype(form)>(args, threads); });
}

}  // namespace vae_fast::VF_ISA
