#include "cpu/isa.h"
#include "cpu/likelihood_tile.h"

namespace vae_fast::VF_ISA {
namespace {

// loss = R(beta kl - ll), and its gradients by mean, logvar and kl while all are at hand.
template <class Form>
void forward(const NegativeELBOArgs& args, int threads) {
  using T = typename Form::T;
  const Tiling tiling(args.shape);
  const int64_t samples = args.samples, batch = args.shape.rows / samples;
  const double count = args.reduction == LossReduction::mean ? static_cast<double>(batch) : 1.0;
  const T grad_ll = static_cast<T>(-1.0 / (count * static_cast<double>(samples)));

  Sink<T> deviance(args.log_likelihood, tiling, /*own_sums=*/true);
  LikelihoodSinks<T> sinks(args.gradients, tiling);
  for_each_tile(tiling, threads, sinks.by_column(), [&](const Tile& tile, int64_t group) {
    Buffer<T> value;
    const LikelihoodTile<Form> in(args.inputs, tile);
    in.run(value.data, grad_ll, nullptr, false, tile, group, &sinks);
    deviance.take(tile, group, value.data);
  });
  sinks.finish();

  double total = 0;
  Buffer<T> buffer;
  for (int64_t start = 0; start < batch; start += kTile) {
    const int rows = static_cast<int>(batch - start < kTile ? batch - start : kTile);
    const T* kl = read(args.kl, start, rows, buffer.data);
    for (int i = 0; i < rows; ++i) {
      const int64_t row = start + i;
      double ll = 0;
      for (int64_t sample = 0; sample < samples; ++sample)
        ll += log_likelihood(deviance.row_sum(sample * batch + row), args.shape.cols);
      ll /= static_cast<double>(samples);
      const double loss = args.beta * kl[i] - ll;
      set(args.log_likelihood, row, ll);
      if (args.reduction == LossReduction::none) set(args.loss, row, loss);
      if (args.grad_kl.data != nullptr) set(args.grad_kl, row, args.beta / count);
      total += loss;
    }
  }
  if (args.reduction != LossReduction::none) set(args.loss, 0, total / count);
}

}  // namespace

void negative_elbo_forward(const NegativeELBOArgs& args, int threads, bool wide) {
  with_form(wide, args.inputs, args.gradients,
            [&](auto form) { forward<decltype(form)>(args, threads); });
}

}  // namespace vae_fast::VF_ISA
