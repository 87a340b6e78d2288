#include "cuda/likelihood_launch.cuh"

namespace vae_fast::device {

void gaussian_log_likelihood_forward(const LogLikelihoodArgs& args, const Context& context) {
  LikelihoodCall<Pass::value> call{};
  call.shape = args.shape;
  call.inputs = args.inputs;
  launch_likelihood("gaussian_log_likelihood_forward", call, context,
                    [&](Plan& plan, LikelihoodCall<Pass::value>& planned) {
                      planned.sums[0] = plan.sum(args.log_likelihood);
                    });
}

void gaussian_log_likelihood_backward(const LogLikelihoodBackwardArgs& args,
                                      const Context& context) {
  LikelihoodCall<Pass::gradients> call{};
  call.shape = args.shape;
  call.inputs = args.inputs;
  call.gradients = args.gradients;
  call.grad = args.grad;
  call.scale = args.scale;
  launch_likelihood("gaussian_log_likelihood_backward", call, context,
                    [&](Plan& plan, LikelihoodCall<Pass::gradients>& planned) {
                      planned.sums[0] = plan.sum(args.gradients.logvar);
                    });
}

}  // namespace vae_fast::device
