// The module vae_fast._C: inputs come as (pointer, dtype, strides or None, ...), outputs as
// (pointer, dtype, reduction), and go to the kernels.
//
// Nothing here knows Torch, so one build serves every version of it. Arguments have been checked in
// vae_fast.functional; the GIL is released while a kernel runs.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "cpu/kernels.h"
#if defined(VF_HAVE_CUDA)
#include "cuda_bindings.h"
#endif

namespace py = pybind11;
using namespace vae_fast;

namespace {

// A field of a tuple, by Python's own macros: a call reads some twenty of them.
PyObject* field(const py::object& tuple, int index) { return PyTuple_GET_ITEM(tuple.ptr(), index); }

// An input, of shape sizes once broadcast. Dimensions of one element are dropped, and adjacent ones
// that one stride walks are joined.
Operand operand(const py::object& given, const py::tuple& sizes) {
  Operand a;
  if (given.is_none()) return a;
  a.data = PyLong_AsVoidPtr(field(given, 0));
  a.dtype = static_cast<DType>(PyLong_AsLong(field(given, 1)));
  if (field(given, 2) == Py_None) return a;
  const auto strides = py::reinterpret_borrow<py::tuple>(field(given, 2));
  if (sizes.size() > kMaxDims) throw py::value_error("tensors have at most 64 dimensions");
  for (size_t d = 0; d < sizes.size(); ++d) {
    const auto size = sizes[d].cast<int64_t>(), stride = strides[d].cast<int64_t>();
    if (size == 1) continue;
    if (a.dims > 0 && a.strides[a.dims - 1] == stride * size) {
      a.sizes[a.dims - 1] *= size;
      a.strides[a.dims - 1] = stride;
    } else {
      a.sizes[a.dims] = size;
      a.strides[a.dims++] = stride;
    }
  }
  if (a.dims == 1 && a.strides[0] == 1) a.dims = 0;
  return a;
}

Output output(const py::object& given) {
  Output a;
  if (given.is_none()) return a;
  a.data = PyLong_AsVoidPtr(field(given, 0));
  a.dtype = static_cast<DType>(PyLong_AsLong(field(given, 1)));
  a.reduction = static_cast<Reduction>(PyLong_AsLong(field(given, 2)));
  return a;
}

Shape shape_of(const py::tuple& sizes, int event_dims) {
  Shape shape{1, 1};
  const auto batch_dims = static_cast<int>(sizes.size()) - event_dims;
  for (int d = 0; d < static_cast<int>(sizes.size()); ++d)
    (d < batch_dims ? shape.rows : shape.cols) *= sizes[d].cast<int64_t>();
  return shape;
}

py::tuple prefix(const py::tuple& sizes, int event_dims) {
  return sizes[py::slice(0, static_cast<py::ssize_t>(sizes.size()) - event_dims, 1)];
}

py::tuple behind(int64_t samples, const py::tuple& sizes) {
  return py::make_tuple(samples) + sizes;
}

LogVarBounds bounds_of(const py::tuple& bounds) {
  return {bounds[0].cast<double>(), bounds[1].cast<double>()};
}

GaussianInputs gaussian_inputs(const py::tuple& inputs, const py::tuple& sizes,
                               const py::tuple& bounds) {
  return {operand(inputs[0], sizes), operand(inputs[1], sizes), operand(inputs[2], sizes),
          operand(inputs[3], sizes), bounds_of(bounds)};
}

GaussianGradients gaussian_gradients(const py::tuple& out) {
  return {output(out[0]), output(out[1]), output(out[2]), output(out[3])};
}

LikelihoodInputs likelihood_inputs(const py::tuple& inputs, const py::tuple& sizes,
                                   const py::tuple& bounds) {
  return {operand(inputs[0], sizes), operand(inputs[1], sizes), operand(inputs[2], sizes),
          bounds_of(bounds)};
}

LikelihoodGradients likelihood_gradients(const py::tuple& out) {
  return {output(out[0]), output(out[1]), output(out[2])};
}

template <class Args>
void launch(void (*Kernels::*kernel)(const Args&, int, bool), const Args& args, int threads,
            bool wide) {
  const py::gil_scoped_release released;
  (kernels().*kernel)(args, threads, wide);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels. Private: vae_fast.functional checks the arguments.";

#if defined(VF_HAVE_CUDA)
  auto cuda = m.def_submodule("cuda");
  device::bind(cuda);
#endif

  // How the module was built, and what it runs on.
  m.def("build_info", [] {
    py::dict info;
    info["version"] = VF_VERSION;
    info["compiler"] = VF_COMPILER;
    info["flags"] = VF_FLAGS;
    info["cuda_version"] = VF_CUDA_VERSION;
    info["cuda_architectures"] = VF_CUDA_ARCHS;
    info["instruction_sets"] = VF_ISAS;
    info["instruction_set"] = kernels().name;
    return info;
  });

  m.def("noise", [](const py::tuple& sizes, int event_dims, int64_t samples, uint64_t seed,
                    uint64_t row_offset, const py::object& eps, int threads, bool wide) {
    launch(&Kernels::noise,
           NoiseArgs{shape_of(sizes, event_dims), samples, {seed, row_offset}, output(eps)},
           threads, wide);
  });

  m.def("sample_kl_forward",
        [](const py::tuple& sizes, int event_dims, int64_t samples, const py::tuple& inputs,
           const py::object& eps, uint64_t seed, uint64_t row_offset, const py::tuple& bounds,
           const py::object& z, const py::object& kl, int threads, bool wide) {
          launch(&Kernels::sample_kl_forward,
                 SampleKLArgs{shape_of(sizes, event_dims),
                              samples,
                              gaussian_inputs(inputs, sizes, bounds),
                              operand(eps, behind(samples, sizes)),
                              {seed, row_offset},
                              output(z),
                              output(kl)},
                 threads, wide);
        });

  m.def("sample_kl_backward",
        [](const py::tuple& sizes, int event_dims, int64_t samples, const py::tuple& inputs,
           const py::object& eps, uint64_t seed, uint64_t row_offset, const py::tuple& bounds,
           const py::object& grad_z, const py::object& grad_kl, const py::tuple& gradients,
           int threads, bool wide) {
          const py::tuple sampled = behind(samples, sizes);
          launch(&Kernels::sample_kl_backward,
                 SampleKLBackwardArgs{shape_of(sizes, event_dims),
                                      samples,
                                      gaussian_inputs(inputs, sizes, bounds),
                                      operand(eps, sampled),
                                      {seed, row_offset},
                                      operand(grad_z, sampled),
                                      operand(grad_kl, prefix(sizes, event_dims)),
                                      gaussian_gradients(gradients)},
                 threads, wide);
        });

  m.def("gaussian_kl_forward",
        [](const py::tuple& sizes, int event_dims, const py::tuple& inputs, const py::tuple& bounds,
           const py::object& kl, int threads, bool wide) {
          launch(&Kernels::gaussian_kl_forward,
                 GaussianKLArgs{shape_of(sizes, event_dims), gaussian_inputs(inputs, sizes, bounds),
                                output(kl)},
                 threads, wide);
        });

  m.def("gaussian_kl_backward",
        [](const py::tuple& sizes, int event_dims, const py::tuple& inputs, const py::tuple& bounds,
           const py::object& grad_kl, const py::tuple& gradients, int threads, bool wide) {
          launch(&Kernels::gaussian_kl_backward,
                 GaussianKLBackwardArgs{
                     shape_of(sizes, event_dims), gaussian_inputs(inputs, sizes, bounds),
                     operand(grad_kl, prefix(sizes, event_dims)), gaussian_gradients(gradients)},
                 threads, wide);
        });

  m.def("gaussian_log_likelihood_forward",
        [](const py::tuple& sizes, int event_dims, const py::tuple& inputs, const py::tuple& bounds,
           const py::object& log_likelihood, int threads, bool wide) {
          launch(
              &Kernels::gaussian_log_likelihood_forward,
              LogLikelihoodArgs{shape_of(sizes, event_dims),
                                likelihood_inputs(inputs, sizes, bounds), output(log_likelihood)},
              threads, wide);
        });

  m.def("gaussian_log_likelihood_backward",
        [](const py::tuple& sizes, int event_dims, const py::tuple& inputs, const py::tuple& bounds,
           const py::object& grad, const py::tuple& gradients, int threads, bool wide) {
          launch(&Kernels::gaussian_log_likelihood_backward,
                 LogLikelihoodBackwardArgs{
                     shape_of(sizes, event_dims), likelihood_inputs(inputs, sizes, bounds),
                     operand(grad, prefix(sizes, event_dims)), likelihood_gradients(gradients)},
                 threads, wide);
        });

  m.def("negative_elbo_forward",
        [](const py::tuple& sizes, int event_dims, int64_t samples, const py::tuple& inputs,
           const py::tuple& bounds, const py::object& kl, const py::tuple& kl_sizes, double beta,
           int reduction, const py::object& loss, const py::object& log_likelihood,
           const py::tuple& gradients, int threads, bool wide) {
          launch(&Kernels::negative_elbo_forward,
                 NegativeELBOArgs{shape_of(sizes, event_dims), samples,
                                  likelihood_inputs(inputs, sizes, bounds), operand(kl, kl_sizes),
                                  beta, static_cast<LossReduction>(reduction), output(loss),
                                  output(log_likelihood), likelihood_gradients(gradients)},
                 threads, wide);
        });
}
