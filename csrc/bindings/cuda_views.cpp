#include "bindings/cuda_views.h"

#include <optional>

namespace py = pybind11;

namespace vae_fast::device {
namespace {

// The one stride that walks the dimensions [from, to) in order, 0 for a single element.
std::optional<int64_t> joined(const Axes& axes, const int64_t* strides, int from, int to) {
  int64_t step = 0, span = 0;  // span: what a step in the next dimension outwards has to be
  bool found = false;
  for (int d = to - 1; d >= from; --d) {
    if (axes.sizes[d] == 1) continue;
    if (!found)
      step = strides[d];
    else if (strides[d] != span)
      return std::nullopt;
    found = true;
    span = strides[d] * axes.sizes[d];
  }
  return step;
}

// False: the kernels cannot read the tensor in place.
bool find_strides(const TensorView& tensor, const Axes& axes, View& view) {
  int64_t strides[kMaxDims + 1];
  const int lead = axes.dims - tensor.dims;  // dimensions that the tensor lacks
  for (int d = 0; d < axes.dims; ++d)
    strides[d] = d < lead || tensor.sizes[d - lead] == 1 ? 0 : tensor.strides[d - lead];
  const auto row = joined(axes, strides, axes.first, axes.last);
  const auto column = joined(axes, strides, axes.last, axes.dims);
  if (!row || !column || *column < 0 || *column > 1) return false;
  view = {tensor.data, tensor.dtype, axes.first ? strides[0] : 0, *row, *column};
  return true;
}

}  // namespace

Problem Axes::problem() const {
  return {product(sizes, first), product(sizes + first, last - first),
          product(sizes + last, dims - last)};
}

bool is_empty(const Problem& shape) {
  return shape.samples == 0 || shape.rows == 0 || shape.cols == 0;
}

View view_of(TensorView& tensor, const Axes& axes, bool adjacent) {
  View view;
  if (!tensor.given()) return view;
  require_broadcastable(tensor, {axes.sizes, axes.dims, 0, axes.device});
  const py::object before = tensor.tensor;  // whose sizes the axes may be
  bool readable = find_strides(tensor, axes, view);
  if (!readable) {  // its own elements in order may do, whatever it is broadcast over
    tensor = read(tensor.tensor.attr("contiguous")());
    readable = find_strides(tensor, axes, view);
  }
  if (!readable || (adjacent && view.col_stride == 0 && axes.problem().cols > 1)) {
    const py::tuple shape = shape_of(axes.sizes, axes.dims);
    tensor = read(tensor.tensor.attr("expand")(shape).attr("contiguous")());
    find_strides(tensor, axes, view);
  }
  return view;
}

View own_view(TensorView& tensor, int64_t count, vae_fast::Device device, bool samples,
              int event_dims) {
  require_count(tensor, count, device);
  return view_of(tensor,
                 {tensor.sizes, tensor.dims, samples ? 1 : 0, tensor.dims - event_dims, device});
}

}  // namespace vae_fast::device
