// Which form of a kernel on the encoder side a call takes, and its launch.
#pragma once

#include "cuda/choose.h"
#include "cuda/gaussian.cuh"

namespace vae_fast::device {

// f(form) with the form for these inputs; adjacent: all are of mean's dtype and adjacent in a row.
// double has one form: it is there to be right.
template <class F>
void with_form(const GaussianInputs& in, bool adjacent, F&& f) {
  const bool standard = in.prior_mean.data == nullptr && in.prior_logvar.data == nullptr;
  const auto choose = [&](auto element, auto pack) {
    using S = decltype(element);
    constexpr int P = decltype(pack)::value;
    if (!adjacent) return f(Form<S, P, true, false>{});
    if (standard) return f(Form<S, P, false, true>{});
    f(Form<S, P, true, true>{});
  };
  switch (in.mean.dtype) {
    case DType::float64: return f(Form<double, 4, true, false>{});
    case DType::float32: return choose(float{}, std::integral_constant<int, 4>{});
    case DType::float16: return choose(__half{}, std::integral_constant<int, 8>{});
    case DType::bfloat16: return choose(__nv_bfloat16{}, std::integral_constant<int, 8>{});
  }
}

template <bool kSample>
void launch_forward(const char* name, const SampleKLArgs& args, const Context& context) {
  const DeviceGuard guard(context.device);
  const GaussianInputs& in = args.inputs;
  const bool adjacent = all_adjacent(in.mean.dtype, args.shape.cols,
                                     {in.logvar, in.prior_mean, in.prior_logvar, args.eps});
  with_form(in, adjacent, [&](auto form) {
    using F = decltype(form);
    Plan plan(name, {1, args.shape.rows, args.shape.cols}, F::kPack, false, context);
    const Sum kl = plan.sum(args.kl);
    plan.run(gaussian_forward_kernel<F, kSample>, GaussianForward{args, plan.walk(), {kl}},
             F::kPack);
  });
}

template <bool kSample>
void launch_backward(const char* name, const SampleKLBackwardArgs& args, const Context& context) {
  const DeviceGuard guard(context.device);
  const GaussianInputs& in = args.inputs;
  const GaussianGradients& out = args.gradients;
  const Output sums[3] = {out.logvar, out.prior_mean, out.prior_logvar};
  const auto run = [&](auto form, auto columns) {
    using F = decltype(form);
    constexpr bool kColumns = decltype(columns)::value;
    Plan plan(name, {1, args.shape.rows, args.shape.cols}, F::kPack, kColumns, context);
    GaussianBackward<F::kGradients> call{args, plan.walk(), {}};
    for (int j = 0; j < F::kGradients; ++j) call.sums[j] = plan.sum(sums[j]);
    plan.run(gaussian_backward_kernel<F, kSample, kColumns>, call, F::kPack);
  };
  if (by_column(sums)) {
    with_element(in.mean.dtype, [&](auto element) {
      run(Form<decltype(element), 4, true, false>{}, std::true_type{});
    });
    return;
  }
  const bool adjacent =
      all_adjacent(in.mean.dtype, args.shape.cols,
                   {in.logvar, in.prior_mean, in.prior_logvar, args.eps, args.grad_z});
  with_form(in, adjacent, [&](auto form) { run(form, std::false_type{}); });
}

}  // namespace vae_fast::device
