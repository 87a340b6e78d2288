#include "cuda/gaussian_launch.cuh"

namespace vae_fast::device {

void gaussian_kl_forward(const SampleKLArgs& args, const Context& context) {
  launch_forward<false>("gaussian_kl_forward", args, context);
}

void gaussian_kl_backward(const SampleKLBackwardArgs& args, const Context& context) {
  launch_backward<false>("gaussian_kl_backward", args, context);
}

}  // namespace vae_fast::device
