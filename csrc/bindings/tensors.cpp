#include "bindings/tensors.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "bindings/dlpack.h"

namespace py = pybind11;

namespace vae_fast {
namespace {

struct Connection {
  const dlpack::ExchangeTable* table = nullptr;
  PyObject* make_large = nullptr;  // never freed: the interpreter may be gone before this is
  PyObject* refuse = nullptr;
  PyObject* plain_types = nullptr;
  PyObject* no_dispatch = nullptr;  // __torch_dispatch__ of a type whose tensors are plain memory
  PyObject* num_threads = nullptr;
  PyObject* reduction = nullptr;
  PyObject* is_neg = nullptr;  // methods of the first plain type
  PyObject* resolve_neg = nullptr;
  PyObject* untyped_storage = nullptr;
  PyObject* data_ptr = nullptr;  // of a storage
  int64_t large = 0;
};
Connection connection;

constexpr int kBits[] = {64, 32, 16, 16};  // by the number of a DType

py::object checked(PyObject* made) {
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(made);
}

py::object call(PyObject* method, const py::object& self) {
  return checked(PyObject_CallOneArg(method, self.ptr()));
}

[[noreturn]] void refuse(const py::object& tensor, const char* reason, bool fits = true) {
  py::handle(connection.refuse)(tensor, reason, fits);
  throw py::value_error(reason);  // not reached: the function raises
}
[[noreturn]] void refuse_beside(const py::object& tensor, const char* reason) {
  refuse(tensor, reason, false);
}

bool is_plain(const py::object& tensor) {
  const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(tensor.ptr()));
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(connection.plain_types); ++i)
    if (type == PyTuple_GET_ITEM(connection.plain_types, i)) return true;
  const py::object dispatch = py::getattr(tensor, "__torch_dispatch__", py::none());
  return dispatch.ptr() == connection.no_dispatch;
}

std::optional<DType> dtype_of(dlpack::DataType type) {
  if (type.lanes != 1) return std::nullopt;
  if (type.code == dlpack::kBfloat && type.bits == 16) return DType::bfloat16;
  if (type.code != dlpack::kFloat) return std::nullopt;
  switch (type.bits) {
    case 64: return DType::float64;
    case 32: return DType::float32;
    case 16: return DType::float16;
    default: return std::nullopt;
  }
}

bool is_int64(dlpack::DataType type) {
  return type.lanes == 1 && type.code == dlpack::kInt && type.bits == 64;
}

// How the tensor lies; an error of torch's becomes a refusal.
dlpack::Tensor described(const py::object& tensor) {
  dlpack::Tensor given;
  if (connection.table->from_object(tensor.ptr(), &given) == 0) return given;
  const py::error_already_set error;
  const std::string message = py::str(error.value());
  refuse(tensor, message.substr(0, message.find('\n')).c_str());
}

// Whether the memory is as large as the view says: it may have been freed or cut under it.
bool has_memory(const py::object& tensor, const dlpack::Tensor& view) {
  const py::object storage = call(connection.untyped_storage, tensor);
  const Py_ssize_t bytes = PyObject_Size(storage.ptr());
  if (bytes < 0) throw py::error_already_set();
  int64_t last = 1;  // elements from the first one on
  for (int d = 0; d < view.dims; ++d) {
    if (view.sizes[d] == 0) return true;
    last += (view.sizes[d] - 1) * view.strides[d];
  }
  const int64_t size = view.dtype.bits / 8;
  if (view.data == nullptr || last * size > bytes) return false;
  const py::object start = call(connection.data_ptr, storage);
  const auto offset = reinterpret_cast<uintptr_t>(view.data) + view.byte_offset -
                      PyLong_AsUnsignedLongLong(start.ptr());
  return offset + static_cast<uintptr_t>(last * size) <= static_cast<uintptr_t>(bytes);
}

dlpack::DataType type_of(DType dtype) {
  return {dtype == DType::bfloat16 ? dlpack::kBfloat : dlpack::kFloat,
          static_cast<uint8_t>(kBits[static_cast<int>(dtype)]), 1};
}

void set_python_error(void*, const char*, const char* message) {
  PyErr_SetString(PyExc_RuntimeError, message);
}

py::object new_tensor(const int64_t* sizes, int dims, dlpack::DataType type, Device device) {
  dlpack::Tensor like{
      nullptr, {device.type, device.index}, dims, type, const_cast<int64_t*>(sizes), nullptr, 0};
  dlpack::ManagedTensor* managed;
  if (connection.table->allocate(&like, &managed, nullptr, set_python_error) != 0)
    throw py::error_already_set();
  void* object;
  if (connection.table->to_object(managed, &object) != 0) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(object));
}

py::object new_tensor(const int64_t* sizes, int dims, DType dtype, Device device) {
  const auto type = type_of(dtype);
  if (device.type == dlpack::kCPU && product(sizes, dims) * (type.bits / 8) >= connection.large)
    return py::handle(connection.make_large)(shape_of(sizes, dims), static_cast<int>(dtype));
  return new_tensor(sizes, dims, type, device);
}

NewTensor with_output(py::object tensor, DType dtype, Reduction reduction) {
  dlpack::Tensor view;
  if (connection.table->from_object(tensor.ptr(), &view) != 0) throw py::error_already_set();
  return {std::move(tensor), {view.data, dtype, reduction}};
}

}  // namespace

int64_t product(const int64_t* sizes, int dims) {
  int64_t count = 1;
  for (int d = 0; d < dims; ++d) count *= sizes[d];
  return count;
}

py::tuple shape_of(const int64_t* sizes, int dims) {
  py::tuple shape(dims);
  for (int d = 0; d < dims; ++d) shape[d] = py::int_(sizes[d]);
  return shape;
}

bool connect(const py::capsule& table, py::object make_large, int64_t large, py::tuple plain_types,
             const py::object& storage, py::object num_threads, py::object reduction,
             py::object refuse) {
  auto* found = static_cast<const dlpack::ExchangeTable*>(
      PyCapsule_GetPointer(table.ptr(), "dlpack_exchange_api"));
  if (found == nullptr) throw py::error_already_set();
  while (found != nullptr && found->version.major != dlpack::kMajorVersion) found = found->older;
  if (found == nullptr || found->from_object == nullptr) return false;
  const auto method = [](const py::object& type, const char* name) {
    return py::object(type.attr(name)).release().ptr();
  };
  const py::object tensor = plain_types[0];
  connection = {found,
                make_large.release().ptr(),
                refuse.release().ptr(),
                plain_types.release().ptr(),
                method(tensor, "__torch_dispatch__"),
                num_threads.release().ptr(),
                reduction.release().ptr(),
                method(tensor, "is_neg"),
                method(tensor, "resolve_neg"),
                method(tensor, "untyped_storage"),
                method(storage, "data_ptr"),
                large};
  return true;
}

int num_threads() {
  const py::object count = checked(PyObject_CallNoArgs(connection.num_threads));
  return static_cast<int>(PyLong_AsLong(count.ptr()));
}

void* current_stream(Device device) {
  void* stream = nullptr;
  if (device.type != dlpack::kCPU &&
      connection.table->current_stream(device.type, device.index, &stream) != 0)
    throw py::error_already_set();
  return stream;
}

namespace {

TensorView read_as(const py::object& tensor, bool seed) {
  TensorView view;
  if (tensor.is_none()) return view;
  if (!is_plain(tensor)) refuse(tensor, "its type is not plain memory");
  view.tensor = tensor;
  // DLPack does not tell of views whose memory holds the negated values.
  if (call(connection.is_neg, tensor).ptr() == Py_True)
    view.tensor = call(connection.resolve_neg, tensor);
  dlpack::Tensor given = described(view.tensor);
  if (given.dims > kMaxDims + 1)
    refuse(tensor, "it has more than 64 dimensions, and one of samples");
  const auto dtype = dtype_of(given.dtype);
  if (seed ? !is_int64(given.dtype) : !dtype)
    refuse(tensor, "kernels do not compute with its dtype");
  if (!has_memory(view.tensor, given)) {
    // Zeros that torch keeps without memory get some.
    if (given.data != nullptr || !py::cast<bool>(view.tensor.attr("_is_zerotensor")()))
      refuse(tensor, "its memory is smaller than its shape and strides say");
    view.tensor = view.tensor.attr("clone")();
    given = described(view.tensor);
    if (!has_memory(view.tensor, given)) refuse(tensor, "it has no memory");
  }
  view.data = static_cast<char*>(given.data) + given.byte_offset;
  view.dtype = dtype.value_or(view.dtype);
  view.device = {given.device.type, given.device.index};
  view.dims = given.dims;
  view.sizes = given.sizes;
  view.strides = given.strides;
  return view;
}

}  // namespace

TensorView read(const py::object& tensor) { return read_as(tensor, false); }
TensorView read_seed(const py::object& tensor) { return read_as(tensor, true); }

Shape Frame::shape() const {
  return {product(sizes, dims - event_dims), product(sizes + dims - event_dims, event_dims)};
}

void require_broadcastable(const TensorView& tensor, const Frame& frame) {
  if (!tensor.given()) return;
  const int lead = frame.dims - tensor.dims;
  bool fits = lead >= 0 && tensor.device == frame.device;
  for (int d = 0; fits && d < tensor.dims; ++d)
    fits = tensor.sizes[d] == 1 || tensor.sizes[d] == frame.sizes[lead + d];
  if (!fits)
    refuse_beside(tensor.tensor,
                  "its shape does not broadcast to the call's, or its device is another");
}

void require_count(const TensorView& tensor, int64_t count, Device device) {
  if (tensor.given() && (tensor.count() != count || !(tensor.device == device)))
    refuse_beside(tensor.tensor, "its number of elements, or its device, is not that of the call");
}

void require_dtype(const TensorView& tensor, DType dtype) {
  if (tensor.given() && tensor.dtype != dtype)
    refuse_beside(tensor.tensor, "the call computes in another dtype");
}

Operand operand(const TensorView& tensor, const Frame& frame) {
  Operand a;
  if (!tensor.given()) return a;
  require_broadcastable(tensor, frame);
  a.data = tensor.data;
  a.dtype = tensor.dtype;
  const int lead = frame.dims - tensor.dims;  // dimensions that the tensor lacks
  for (int d = 0; d < frame.dims; ++d) {
    const int64_t size = frame.sizes[d];
    if (size == 1) continue;
    const int64_t stride = d < lead || tensor.sizes[d - lead] == 1 ? 0 : tensor.strides[d - lead];
    if (a.dims > 0 && a.strides[a.dims - 1] == stride * size) {
      a.sizes[a.dims - 1] *= size;
      a.strides[a.dims - 1] = stride;
    } else {
      if (a.dims == kMaxDims) throw py::value_error("tensors have at most 64 dimensions");
      a.sizes[a.dims] = size;
      a.strides[a.dims++] = stride;
    }
  }
  if (a.dims == 1 && a.strides[0] == 1) a.dims = 0;
  return a;
}

Operand operand(const TensorView& tensor, int64_t count, Device device) {
  require_count(tensor, count, device);
  return operand(tensor, {tensor.sizes, tensor.dims, 0, tensor.device});
}

NewTensor make(const int64_t* sizes, int dims, DType dtype, Device device, Reduction reduction) {
  return with_output(new_tensor(sizes, dims, dtype, device), dtype, reduction);
}

NewTensor make_bytes(int64_t count, Device device) {
  return with_output(new_tensor(&count, 1, {dlpack::kUnsigned, 8, 1}, device), {}, {});
}

namespace {

// The first dims of a frame behind one of samples, if that is given.
NewTensor make_behind(const Frame& frame, int dims, DType dtype, std::optional<int64_t> samples,
                      Reduction reduction) {
  if (!samples) return make(frame.sizes, dims, dtype, frame.device, reduction);
  if (dims > kMaxDims) throw py::value_error("tensors have at most 64 dimensions");
  int64_t full[kMaxDims + 1];
  full[0] = *samples;
  std::memcpy(full + 1, frame.sizes, static_cast<size_t>(dims) * sizeof(int64_t));
  return make(full, dims + 1, dtype, frame.device, reduction);
}

}  // namespace

NewTensor make_rows(const Frame& frame, DType dtype, std::optional<int64_t> samples) {
  return make_behind(frame, frame.dims - frame.event_dims, dtype, samples, Reduction::row);
}

NewTensor make_columns(const Frame& frame, DType dtype) {
  return make(frame.sizes + frame.dims - frame.event_dims, frame.event_dims, dtype, frame.device,
              Reduction::column);
}

NewTensor make_samples(const Frame& frame, DType dtype, std::optional<int64_t> samples) {
  return make_behind(frame, frame.dims, dtype, samples, Reduction::full);
}

namespace {

Reduction reduction_of(const TensorView& input, const Frame& frame) {
  if (input.dims == frame.dims && std::equal(input.sizes, input.sizes + input.dims, frame.sizes))
    return Reduction::full;
  const py::object found = py::handle(connection.reduction)(
      shape_of(input.sizes, input.dims), shape_of(frame.sizes, frame.dims), frame.event_dims);
  if (found.is_none()) refuse_beside(input.tensor, "kernels do not sum to its shape");
  return static_cast<Reduction>(py::cast<int>(found));
}

}  // namespace

NewTensor make_gradient(const TensorView& input, const Frame& frame) {
  const Reduction reduction = reduction_of(input, frame);
  const Shape shape = frame.shape();
  const int64_t counts[] = {shape.rows * shape.cols, shape.rows, shape.cols, 1};  // by its number
  require_count(input, counts[static_cast<int>(reduction)], frame.device);
  return make(input.sizes, input.dims, input.dtype, frame.device, reduction);
}

NewTensor as_gradient(py::object tensor, const Frame& frame) {
  const TensorView view = read(tensor);
  require_count(view, product(frame.sizes, frame.dims), frame.device);
  if (view.dims != frame.dims) refuse_beside(tensor, "its shape is not that of the call");
  int64_t row_gap = 0;
  for (int d = frame.dims - frame.event_dims - 1; d >= 0; --d) {
    if (frame.sizes[d] == 1) continue;
    row_gap = view.strides[d] - frame.shape().cols;
    break;
  }
  return {std::move(tensor), {view.data, view.dtype, Reduction::full, row_gap}};
}

void fill_zero(const NewTensor& made) {
  if (made.tensor.is_none()) return;
  static PyObject* const zero = PyUnicode_InternFromString("zero_");
  checked(PyObject_CallMethodNoArgs(made.tensor.ptr(), zero));
}

}  // namespace vae_fast
