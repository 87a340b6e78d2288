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

// Whether rows are of whole packs, read or written in whole accesses: cols is a multiple of pack,
// and a pack 16 bytes.
inline bool in_whole_packs(const View& view, int pack) {
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.row_stride % pack == 0 &&
         view.sample_stride % pack == 0;
}
inline bool in_whole_packs(const Output& output, DType dtype, int pack) {
  return output.data != nullptr && output.reduction == Reduction::full && output.dtype == dtype &&
         reinterpret_cast<uintptr_t>(output.data) % 16 == 0 && output.row_gap % pack == 0;
}

// Whether packs of the form F that are aligned in the tensor fill its rows, from the beginning of
// each.
template <class F>
bool packs_fill_rows(const View& view, int64_t cols) {
  return cols % F::kPack == 0 && view.row_stride % F::kPack == 0 &&
         view.sample_stride % F::kPack == 0 &&
         reinterpret_cast<uintptr_t>(view.data) / sizeof(typename F::S) % F::kPack == 0;
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
