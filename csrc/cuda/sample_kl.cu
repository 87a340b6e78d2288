#include "cuda/gaussian_launch.cuh"

namespace vae_fast::device {

void sample_kl_forward(const SampleKLArgs& args, const Context& context) {
  launch_forward<true>("sample_kl_forward", args, context);
}

void sample_kl_backward(const SampleKLBackwardArgs& args, const Context& context) {
  launch_backward<true>("sample_kl_backward", args, context);
}

}  // namespace vae_fast::device
