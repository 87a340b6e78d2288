// Torch's tensors, read and made through DLPack's exchange table, which their type carries: without
// Torch's headers, and without Python code for each tensor.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "cpu/operand.h"

namespace vae_fast {

// Where tensors come from: the capsule of torch.Tensor's table; who makes those of at least `large`
// bytes, as function(sizes, code of the dtype); the types whose tensors are plain memory, and that
// of their storages; who tells how many threads to use; what an operand has one element for, as
// function(shape, full shape, event_dims); and who raises the error of a tensor that cannot be
// read, or does not fit the others, as function(tensor, reason, fits). Called once, when the
// backend is imported; false: the table is of a version that is not known here.
bool connect(const pybind11::capsule& table, pybind11::object make_large, int64_t large,
             pybind11::tuple plain_types, const pybind11::object& storage,
             pybind11::object num_threads, pybind11::object reduction, pybind11::object refuse);
int num_threads();

int64_t product(const int64_t* sizes, int dims);
pybind11::tuple shape_of(const int64_t* sizes, int dims);

// As DLPack has it.
struct Device {
  int32_t type = 1, index = 0;  // the CPU

  bool operator==(const Device& other) const { return type == other.type && index == other.index; }
};
void* current_stream(Device device);  // null on the CPU

// A tensor that a call has been given, or none. Sizes and strides are the tensor's own.
struct TensorView {
  pybind11::object tensor = pybind11::none();  // what was read: not a view that negates
  void* data = nullptr;
  DType dtype = DType::float32;
  Device device;
  int dims = 0;
  const int64_t* sizes = nullptr;
  const int64_t* strides = nullptr;  // in elements

  bool given() const { return !tensor.is_none(); }
  bool is_double() const { return given() && dtype == DType::float64; }
  int64_t count() const { return product(sizes, dims); }  // of elements
};
// None: none. Others are refused unless their memory is there and holds numbers that kernels read.
TensorView read(const pybind11::object& tensor);
// A seed, of int64; the view's dtype says nothing.
TensorView read_seed(const pybind11::object& tensor);

// Dimensions [*batch, *event] of tensors on a device.
struct Frame {
  const int64_t* sizes;
  int dims;
  int event_dims;
  Device device = {};

  Shape shape() const;
};

// The tensor broadcast to the frame's shape, or as it is, of so many elements. Dimensions of one
// element are dropped, and adjacent ones that one stride walks are joined. A tensor that does not
// fit, or lies on another device, is refused.
Operand operand(const TensorView& tensor, const Frame& frame);
Operand operand(const TensorView& tensor, int64_t count, Device device = {});
void require_count(const TensorView& tensor, int64_t count, Device device);
void require_dtype(const TensorView& tensor, DType dtype);
void require_broadcastable(const TensorView& tensor, const Frame& frame);

// A tensor to be written, and the same as a kernel takes it. By default: none.
struct NewTensor {
  pybind11::object tensor = pybind11::none();
  Output output;
};
NewTensor make(const int64_t* sizes, int dims, DType dtype, Device device = {},
               Reduction reduction = Reduction::full);
NewTensor make_bytes(int64_t count, Device device);  // whose dtype says nothing
// Of [*batch], of [*event], and of the frame's shape behind a dimension of samples, if given.
NewTensor make_rows(const Frame& frame, DType dtype, std::optional<int64_t> samples = {});
NewTensor make_columns(const Frame& frame, DType dtype);
NewTensor make_samples(const Frame& frame, DType dtype, std::optional<int64_t> samples);
// A gradient: what an input of this shape gets of the values at the elements.
NewTensor make_gradient(const TensorView& input, const Frame& frame);
// The gradient that `tensor` is to be: of the frame's shape, its rows whole and evenly apart.
NewTensor as_gradient(pybind11::object tensor, const Frame& frame);
void fill_zero(const NewTensor& tensor);

}  // namespace vae_fast
