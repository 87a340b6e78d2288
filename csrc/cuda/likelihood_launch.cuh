// Which form of a kernel on the decoder side a call takes, and its launch.
#pragma once

#include "cuda/choose.h"
#include "cuda/likelihood.cuh"

namespace vae_fast::device {

// Whether the call is one of a plain form, with packs of that length.
template <Pass kPass>
bool is_plain(const LikelihoodCall<kPass>& call, int pack) {
  const LikelihoodInputs& in = call.inputs;
  const LikelihoodGradients& out = call.gradients;
  return in.logvar.data != nullptr && !call.squares && call.shape.cols % pack == 0 &&
         in_whole_packs(in.x, pack) && in_whole_packs(in.mean, pack) &&
         in_whole_packs(in.logvar, pack) &&
         (kPass == Pass::value || (in_whole_packs(out.mean, in.mean.dtype, pack) &&
                                   in_whole_packs(out.logvar, in.mean.dtype, pack)));
}

// f(form) with the form for this call, in packs of 16 bytes of mean. float32 x may stand beside
// half-precision mean.
template <Pass kPass, class F>
void with_form(const LikelihoodCall<kPass>& call, F&& f) {
  const LikelihoodInputs& in = call.inputs;
  const Problem& shape = call.shape;
  const DType dtype = in.mean.dtype;
  const bool adjacent =
      all_adjacent(dtype, shape.cols, {in.logvar}) && all_adjacent(in.x.dtype, shape.cols, {in.x});
  const auto choose = [&](auto element, auto pack) {
    using S = decltype(element);
    constexpr int P = decltype(pack)::value;
    if (!adjacent) return f(LikelihoodForm<S, S, P, false>{});
    if (in.x.dtype == dtype) {
      if (is_plain(call, P)) return f(LikelihoodForm<S, S, P, true, true>{});
      return f(LikelihoodForm<S, S, P, true>{});
    }
    f(LikelihoodForm<S, float, P, true>{});
  };
  switch (dtype) {
    case DType::float64: return f(LikelihoodForm<double, double, 4, false>{});
    case DType::float32: return choose(float{}, std::integral_constant<int, 4>{});
    case DType::float16: return choose(__half{}, std::integral_constant<int, 8>{});
    case DType::bfloat16: return choose(__nv_bfloat16{}, std::integral_constant<int, 8>{});
  }
}

// prepare(plan, call) says where the sums go.
template <Pass kPass, class Prepare>
void launch_likelihood(const char* name, LikelihoodCall<kPass> call, const Context& context,
                       Prepare&& prepare) {
  const DeviceGuard guard(context.device);
  const auto run = [&](auto form, auto columns) {
    using F = decltype(form);
    constexpr bool kColumns = decltype(columns)::value;
    Plan plan(name, call.shape, F::kPack, packs_fill_rows<F>(call.inputs.mean, call.shape.cols),
              kColumns, context);
    call.walk = plan.walk();
    prepare(plan, call);
    plan.run(likelihood_kernel<F, kPass, kColumns>, call, F::kPack);
  };
  if constexpr (kPass != Pass::value) {
    const Output sums[1] = {call.gradients.logvar};
    if (by_column(sums)) {
      with_element(call.inputs.mean.dtype, [&](auto element) {
        using S = decltype(element);
        run(LikelihoodForm<S, S, 4, false>{}, std::true_type{});
      });
      return;
    }
  }
  with_form(call, [&](auto form) { run(form, std::false_type{}); });
}

}  // namespace vae_fast::device
