#include "cuda/gaussian_launch.cuh"
#include "cuda/log_weights.cuh"

namespace vae_fast::device {
namespace {

// Samples that a thread works on in turn: as few as keep the device busy, and no more than there
// are sums for.
int64_t samples_at_once(const Problem& shape, int pack, const Context& context) {
  const int64_t packs = shape.samples * shape.rows * ((shape.cols + pack - 1) / pack);
  const int64_t wanted = packs / (enough_blocks(context.device) * kThreads);
  return std::min(std::max<int64_t>(wanted, 1), std::min<int64_t>(shape.samples, kSamplesAtOnce));
}

// The form of the backward pass. What it keeps of an element over the samples leaves no room for
// eight elements of any kind: of those it works on four.
template <class F>
using BackwardForm =
    std::conditional_t<F::kPack == 8 && !F::kAdjacent, Form<typename F::S, 4, true, false>, F>;

}  // namespace

void sample_log_weights_forward(const LogWeightsArgs& args, const Context& context) {
  const char* name = "sample_log_weights_forward";
  const DeviceGuard guard(context.device);
  const GaussianInputs& in = args.inputs;
  const Problem& shape = args.shape;
  const bool adjacent = all_adjacent(in.mean.dtype, shape.cols,
                                     {in.logvar, in.prior_mean, in.prior_logvar, args.eps});
  with_form(in, adjacent, NeverPlain{}, [&](auto form) {
    using F = decltype(form);
    const int64_t at_once = samples_at_once(shape, F::kPack, context);
    const int64_t groups = (shape.samples + at_once - 1) / at_once;
    Plan plan(name, {groups, shape.rows, shape.cols}, F::kPack,
              packs_fill_rows<F>(in.mean, shape.cols), false, context);
    const Sum log_ratio = plan.row_sums(args.log_ratio, shape.samples * shape.rows);
    plan.run(log_weights_forward_kernel<F>,
             LogWeightsForward{args, static_cast<int>(at_once), plan.walk(), log_ratio}, F::kPack,
             static_cast<size_t>(at_once) * kThreads * sizeof(typename F::T));
  });
}

void sample_log_weights_backward(const LogWeightsBackwardArgs& args, const Context& context) {
  const DeviceGuard guard(context.device);
  const GaussianInputs& in = args.inputs;
  const GaussianGradients& out = args.gradients;
  const Output sums[3] = {out.logvar, out.prior_mean, out.prior_logvar};
  const bool adjacent =
      all_adjacent(in.mean.dtype, args.shape.cols,
                   {in.logvar, in.prior_mean, in.prior_logvar, args.eps, args.grad_z});
  with_backward_form(in, sums, adjacent, NeverPlain{}, [&](auto form, auto columns) {
    using F = BackwardForm<decltype(form)>;
    constexpr bool kColumns = decltype(columns)::value;
    Plan plan("sample_log_weights_backward", {1, args.shape.rows, args.shape.cols}, F::kPack,
              packs_fill_rows<F>(in.mean, args.shape.cols), kColumns, context);
    LogWeightsBackward<F::kGradients> call{args, plan.walk(), {}};
    for (int j = 0; j < F::kGradients; ++j) call.sums[j] = plan.sum(sums[j]);
    plan.run(log_weights_backward_kernel<F, kColumns>, call, F::kPack);
  });
}

}  // namespace vae_fast::device
