#include "cuda/gaussian_launch.cuh"

namespace vae_fast::device {
namespace {

// The KL summed by columns takes a walk of its own, with one more look at the Gaussian: by rows, a
// thread meets a column only once.
void launch_dims(const SampleKLArgs& args, const Context& context) {
  with_element(args.inputs.mean.dtype, [&](auto element) {
    using F = Form<decltype(element), 4, true, false>;
    Plan plan("sample_kl_forward", {1, args.shape.rows, args.shape.cols}, F::kPack, false, true,
              context);
    const Sum dims = plan.sum(args.dims);
    plan.run(gaussian_forward_kernel<F, false, true>, forward_call(args, plan, dims), F::kPack);
  });
}

}  // namespace

void sample_kl_forward(const SampleKLArgs& args, const Context& context) {
  launch_forward<true>("sample_kl_forward", args, context);
  if (args.dims.data == nullptr) return;
  const DeviceGuard guard(context.device);
  launch_dims(args, context);
}

void sample_kl_backward(const SampleKLBackwardArgs& args, const Context& context) {
  launch_backward<true>("sample_kl_backward", args, context);
}

}  // namespace vae_fast::device
