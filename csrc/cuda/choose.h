// What decides between the forms of a kernel.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "cuda/element.cuh"
#include "cuda/kernels.h"

namespace vae_fast::device {

// Whether all given views are of one dtype with elements next to each other in a row.
inline bool all_adjacent(DType dtype, int64_t cols, std::initializer_list<View> views) {
  for (const View& view : views) {
    if (view.data == nullptr) continue;
    if (view.dtype != dtype || (view.col_stride != 1 && cols != 1)) return false;
  }
  return true;
}

template <int kCount>
bool by_column(const Output (&outputs)[kCount]) {
  for (const Output& output : outputs)
    if (output.data != nullptr && output.reduction == Reduction::column) return true;
  return false;
}

// f with an element of the type that dtype names.
template <class F>
void with_element(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float64: return f(double{});
    case DType::float32: return f(float{});
    case DType::float16: return f(__half{});
    case DType::bfloat16: return f(__nv_bfloat16{});
  }
}

}  // namespace vae_fast::device
