#include "cpu/gaussian_tile.h"
#include "cpu/isa.h"
#include "cpu/sink.h"

namespace vae_fast::VF_ISA {
namespace {

template <class Form>
void forward(const GaussianKLArgs& args, int threads) {
  using T = typename Form::T;
  const Tiling tiling(args.shape);
  Sink<T> kl(args.kl, tiling);
  for_each_tile(tiling, threads, false, [&](const Tile& tile, int64_t group) {
    Buffer<T> buffer;
    const GaussianTile<Form> in(args.inputs, tile);
    in.forward(buffer.data);
    raise_to_floor(args.control, buffer.data, tile.count);
    kl.take(tile, group, buffer.data);
  });
  kl.finish();
}

template <class Form>
void backward(const GaussianKLBackwardArgs& args, int threads) {
  using T = typename Form::T;
  const Tiling tiling(args.shape);
  GaussianSinks<T> sinks(args.gradients, tiling);
  for_each_tile(tiling, threads, sinks.by_column(), [&](const Tile& tile, int64_t group) {
    const GaussianTile<Form> in(args.inputs, tile);
    in.backward(args.upstream, args.shape, tile, group, {}, sinks);
  });
  sinks.finish();
}

}  // namespace

void gaussian_kl_forward(const GaussianKLArgs& args, int threads, bool wide) {
  const GaussianInputs& in = args.inputs;
  with_form(wide, in.bounds, is_standard(in), {&in.mean, &in.logvar}, {},
            [&](auto form) { forward<decltype(form)>(args, threads); });
}

void gaussian_kl_backward(const GaussianKLBackwardArgs& args, int threads, bool wide) {
  const GaussianInputs& in = args.inputs;
  const GaussianGradients& out = args.gradients;
  with_form(wide, in.bounds, is_standard(in), {&in.mean, &in.logvar},
            {&out.mean, &out.logvar, &out.prior_mean, &out.prior_logvar},
            [&](auto form) { backward<decltype(form)>(args, threads); });
}

}  // namespace vae_fast::VF_ISA
