// What a kernel's loops are compiled for.
#pragma once

#include <initializer_list>

#include "cpu/convert.h"
#include "cpu/math.h"

namespace vae_fast::VF_ISA {

// T: what is computed in. S: the elements that the loops read and write. T, where tensors may be
// anything: they go through buffers where they have to. Half precision, where every tensor has an
// element of it each, next to one another: these are converted in registers, which takes half the
// time of a loss on large bfloat16 tensors that buffers take (AMD Zen 5). kRange: of what is
// exponentiated.
template <class T_, class S_, math::Range kRange_>
struct Form {
  using T = T_;
  using S = S_;
  static constexpr math::Range kRange = kRange_;
};

// f(form) with the form for these tensors; those without data are not given. halves: there may be
// one of half precision.
template <class F>
void with_form(bool wide, const LogVarBounds& bounds, bool halves,
               std::initializer_list<const Operand*> inputs,
               std::initializer_list<const Output*> outputs, F&& f) {
  using math::Range;
  if (wide) return f(Form<double, double, Range::any>{});
  if (bounds.low < -math::kModest || bounds.high > math::kModest)
    return f(Form<float, float, Range::any>{});
  const auto all = [&](DType dtype) {
    for (const Operand* in : inputs)
      if (in->data != nullptr && (in->dims > 0 || in->dtype != dtype)) return false;
    for (const Output* out : outputs)
      if (out->data != nullptr &&
          (out->reduction != Reduction::full || out->dtype != dtype || out->row_gap != 0))
        return false;
    return true;
  };
  if (halves && all(DType::bfloat16)) return f(Form<float, BFloat16, Range::modest>{});
  if (halves && all(DType::float16)) return f(Form<float, Half, Range::modest>{});
  f(Form<float, float, Range::modest>{});
}

}  // namespace vae_fast::VF_ISA
