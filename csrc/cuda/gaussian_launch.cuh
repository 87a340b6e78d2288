// Which form of a kernel on the encoder side a call takes, and its launch.
#pragma once

#include "cuda/choose.h"
#include "cuda/gaussian.cuh"

namespace vae_fast::device {

struct NeverPlain {};

// f(form) with the form for these inputs; adjacent: all are of mean's dtype and adjacent in a row.
// plain(pack): whether the call is one of a plain form with packs of that length, or NeverPlain.
// double has one form: it is there to be right.
template <class Plain, class F>
void with_form(const GaussianInputs& in, bool adjacent, Plain&& plain, F&& f) {
  const bool standard = in.prior_mean.data == nullptr && in.prior_logvar.data == nullptr;
  const auto choose = [&](auto element, auto pack) {
    using S = decltype(element);
    constexpr int P = decltype(pack)::value;
    if (!adjacent) return f(Form<S, P, true, false>{});
    if constexpr (!std::is_same_v<std::decay_t<Plain>, NeverPlain>) {
      if (standard && plain(P)) return f(Form<S, P, false, true, true>{});
    }
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

// f(form, whether by columns) with the form for these inputs and for where the sums go.
template <class Plain, class F>
void with_backward_form(const GaussianInputs& in, const Output (&sums)[3], bool adjacent,
                        Plain&& plain, F&& f) {
  if (!by_column(sums)) {
    return with_form(in, adjacent, plain, [&](auto form) { f(form, std::false_type{}); });
  }
  with_element(in.mean.dtype, [&](auto element) {
    f(Form<decltype(element), 4, true, false>{}, std::true_type{});
  });
}

inline bool has_floor(const KLControl& control) { return control.floor > -INFINITY; }

inline GaussianForward forward_call(const SampleKLArgs& args, const Plan& plan, const Sum& sum) {
  return {args, has_floor(args.control), plan.walk(), {sum}};
}

template <bool kSample>
void launch_forward(const char* name, const SampleKLArgs& args, const Context& context) {
  const DeviceGuard guard(context.device);
  const GaussianInputs& in = args.inputs;
  const bool adjacent = all_adjacent(in.mean.dtype, args.shape.cols,
                                     {in.logvar, in.prior_mean, in.prior_logvar, args.eps});
  const auto plain = [&](int pack) {
    return args.shape.samples == 1 && args.shape.cols % pack == 0 && args.eps.data == nullptr &&
           !has_floor(args.control) && in_whole_packs(in.mean, pack) &&
           in_whole_packs(in.logvar, pack) &&
           (!kSample || in_whole_packs(args.z, in.mean.dtype, pack));
  };
  with_form(in, adjacent, plain, [&](auto form) {
    using F = decltype(form);
    Plan plan(name, {1, args.shape.rows, args.shape.cols}, F::kPack,
              packs_fill_rows<F>(in.mean, args.shape.cols), false, context);
    const Sum kl = plan.sum(args.kl);
    plan.run(gaussian_forward_kernel<F, kSample, false>, forward_call(args, plan, kl), F::kPack);
  });
}

template <bool kSample>
void launch_backward(const char* name, const SampleKLBackwardArgs& args, const Context& context) {
  const DeviceGuard guard(context.device);
  const GaussianInputs& in = args.inputs;
  const GaussianGradients& out = args.gradients;
  const Output sums[3] = {out.logvar, out.prior_mean, out.prior_logvar};
  const bool controlled = args.grad_dims.data != nullptr || has_floor(args.control) ||
                          args.control.posterior_weight != 1.0 || args.control.prior_weight != 1.0;
  const bool adjacent =
      all_adjacent(in.mean.dtype, args.shape.cols,
                   {in.logvar, in.prior_mean, in.prior_logvar, args.eps, args.grad_z});
  const auto plain = [&](int pack) {
    const bool sampled = args.shape.samples == 1 && args.eps.data == nullptr &&
                         args.grad_z.data != nullptr && in_whole_packs(args.grad_z, pack);
    return (sampled || !kSample) && !controlled && args.grad_kl.data != nullptr &&
           args.shape.cols % pack == 0 && in_whole_packs(in.mean, pack) &&
           in_whole_packs(in.logvar, pack) && in_whole_packs(out.mean, in.mean.dtype, pack) &&
           in_whole_packs(out.logvar, in.mean.dtype, pack);
  };
  with_backward_form(in, sums, adjacent, plain, [&](auto form, auto columns) {
    using F = decltype(form);
    constexpr bool kColumns = decltype(columns)::value;
    Plan plan(name, {1, args.shape.rows, args.shape.cols}, F::kPack,
              packs_fill_rows<F>(in.mean, args.shape.cols), kColumns, context);
    GaussianBackward<F::kGradients> call{args, controlled, plan.walk(), {}};
    for (int j = 0; j < F::kGradients; ++j) call.sums[j] = plan.sum(sums[j]);
    plan.run(gaussian_backward_kernel<F, kSample, kColumns>, call, F::kPack);
  });
}

}  // namespace vae_fast::device
