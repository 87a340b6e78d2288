#include "cuda/likelihood_launch.cuh"

namespace vae_fast::device {
namespace {

void launch_value(const char* name, const LogLikelihoodArgs& args, bool squares,
                  const Context& context) {
  LikelihoodCall<Pass::value> call{};
  call.shape = args.shape;
  call.inputs = args.inputs;
  call.squares = squares;
  launch_likelihood(name, call, context, [&](Plan& plan, LikelihoodCall<Pass::value>& planned) {
    planned.sums[0] = plan.sum(args.row_value);
  });
}

}  // namespace

void gaussian_log_likelihood_forward(const LogLikelihoodArgs& args, const Context& context) {
  launch_value("gaussian_log_likelihood_forward", args, false, context);
}

void squared_error_forward(const LogLikelihoodArgs& args, const Context& context) {
  launch_value("squared_error_forward", args, true, context);
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
