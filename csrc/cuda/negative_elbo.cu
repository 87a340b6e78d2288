#include "cuda/likelihood_launch.cuh"

namespace vae_fast::device {
namespace {

// Where the sums of a loss go. A row's log-likelihood is written at once where one block has all of
// it; the loss of all rows comes from a sum of its own, so it needs no second look at the rows.
template <Pass kPass>
void prepare(const NegativeELBOArgs& args, Plan& plan, LikelihoodCall<kPass>& call) {
  const Problem& shape = args.shape;
  const double samples = static_cast<double>(shape.samples);
  const bool by_row = args.reduction == LossReduction::none;
  const int64_t parts = plan.walk().parts;
  if (by_row || shape.samples > 1 || parts > 1) {
    Job rows{nullptr,       shape.rows, parts, parts, 1, shape.samples, shape.rows * parts,
             1.0 / samples, {},         {},    {},    {}};
    if (by_row) {
      rows.loss = args.loss;
      rows.kl = args.kl;
      rows.beta = args.beta;
    }
    call.sums[0] = plan.later(args.log_likelihood, rows, shape.samples * shape.rows * parts);
  } else {
    call.sums[0] = plan.sum(args.log_likelihood);
  }
  if (!by_row) call.sums[1] = plan.total(args.loss, call.scale);
}

}  // namespace

void negative_elbo_forward(const NegativeELBOArgs& args, const Context& context) {
  const bool mean = args.reduction == LossReduction::mean;
  const double count = mean ? static_cast<double>(args.shape.rows) : 1.0;
  LikelihoodCall<Pass::both> call{};
  call.shape = args.shape;
  call.inputs = args.inputs;
  call.gradients = args.gradients;
  call.scale = -1.0 / (count * static_cast<double>(args.shape.samples));
  call.kl = args.kl;
  call.beta = args.beta;
  call.grad_kl = args.grad_kl;
  launch_likelihood("negative_elbo_forward", call, context,
                    [&](Plan& plan, LikelihoodCall<Pass::both>& planned) {
                      prepare(args, plan, planned);
                      planned.sums[2] = plan.sum(args.gradients.logvar);
                    });
}

}  // namespace vae_fast::device
