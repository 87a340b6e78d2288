// The module vae_fast._C: inputs come as (pointer, dtype, strides or None, ...), outputs as
// (pointer, dtype, reduction), and go to the kernels.
//
// Nothing here knows Torch, so one build serves every version of it. Arguments have been checked in
// vae_fast.functional; the GIL is released while a kernel runs.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
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

// An input, once broadcast of shape [*sizes], of its first dims dimensions, or of these behind a
// dimension of samples. Dimensions of one element are dropped, and adjacent ones that one stride
// walks are joined.
Operand operand(const py::object& given, const py::tuple& sizes, size_t dims,
                std::optional<int64_t> samples = std::nullopt) {
  Operand a;
  if (given.is_none()) return a;
  a.data = PyLong_AsVoidPtr(field(given, 0));
  a.dtype = static_cast<DType>(PyLong_AsLong(field(given, 1)));
  if (field(given, 2) == Py_None) return a;
  const auto strides = py::reinterpret_borrow<py::tuple>(field(given, 2));
  const size_t lead = samples ? 1 : 0;
  if (lead + dims > kMaxDims) throw py::value_error("tensors have at most 64 dimensions");
  for (size_t d = 0; d < lead + dims; ++d) {
    const auto size = d < lead ? *samples : sizes[d - lead].cast<int64_t>();
    const auto stride = strides[d].cast<int64_t>();
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
Operand operand(const py::object& given, const py::tuple& sizes) {
  return operand(given, sizes, sizes.size());
}
Operand sampled(const py::object& given, const py::tuple& sizes, int64_t samples) {
  return operand(given, sizes, sizes.size(), samples);
}
Operand one_a_row(const py::object& given, const py::tuple& sizes, int event_dims,
                  std::optional<int64_t> samples = std::nullopt) {
  return operand(given, sizes, sizes.size() - event_dims, samples);
}
Operand one_a_column(const py::object& given, const py::tuple& sizes, int event_dims) {
  if (given.is_none()) return {};
  return operand(given, sizes[py::slice(-event_dims, std::nullopt, std::nullopt)], event_dims);
}

// The low 64 bits of an int or of what converts to one, a 0-dim tensor among them; 0 for None.
uint64_t low_bits(const py::object& given) {
  if (given.is_none()) return 0;
  const auto number = py::reinterpret_steal<py::object>(PyNumber_Long(given.ptr()));
  if (!number) throw py::error_already_set();
  return PyLong_AsUnsignedLongLongMask(number.ptr());
}

Noise noise_of(const py::object& seed, const py::object& row_offset, uint32_t sample_offset = 0) {
  return {low_bits(seed), low_bits(row_offset), sample_offset};
}

KLControl control_of(const py::object& given) {
  return {PyFloat_AsDouble(field(given, 0)), PyFloat_AsDouble(field(given, 1)),
          PyFloat_AsDouble(field(given, 2))};
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

bool is_double(const Operand& a) { return a.data != nullptr && a.dtype == DType::float64; }

// What is computed in double: what a float64 tensor goes into, the given noise apart.
bool wide(const NoiseArgs& args) { return args.eps.dtype == DType::float64; }
bool wide(const GaussianInputs& in) {
  return is_double(in.mean) || is_double(in.logvar) || is_double(in.prior_mean) ||
         is_double(in.prior_logvar);
}
bool wide(const LikelihoodInputs& in) {
  return is_double(in.x) || is_double(in.mean) || is_double(in.logvar);
}
bool wide(const ImportanceWeightedELBOArgs& args) { return is_double(args.log_weights); }
bool wide(const NegativeELBOArgs& args) { return wide(args.inputs) || is_double(args.kl); }
template <class Args>
bool wide(const Args& args) {
  return wide(args.inputs);
}

template <class Args>
void launch(void (*Kernels::*kernel)(const Args&, int, bool), const Args& args, int threads) {
  const py::gil_scoped_release released;
  (kernels().*kernel)(args, threads, wide(args));
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

  // The value of a float32 or float64 tensor of one element, which Tensor.item() gives in some
  // 6 us where its code is not in the cache (AMD Zen 4).
  m.def("value", [](const py::object& given) {
    const Operand a = operand(given, py::tuple());
    return a.dtype == DType::float64 ? *static_cast<const double*>(a.data)
                                     : *static_cast<const float*>(a.data);
  });

  m.def("noise", [](const py::tuple& sizes, int event_dims, int64_t samples, const py::object& seed,
                    const py::object& row_offset, const py::object& eps, int threads) {
    launch(&Kernels::noise,
           NoiseArgs{shape_of(sizes, event_dims), samples, noise_of(seed, row_offset), output(eps)},
           threads);
  });

  m.def("sample_kl_forward",
        [](const py::tuple& sizes, int event_dims, int64_t samples, const py::tuple& inputs,
           const py::object& eps, const py::object& seed, const py::object& row_offset,
           const py::tuple& bounds, const py::tuple& control, const py::object& z,
           const py::object& kl, const py::object& dims, int threads) {
          launch(&Kernels::sample_kl_forward,
                 SampleKLArgs{shape_of(sizes, event_dims), samples,
                              gaussian_inputs(inputs, sizes, bounds), sampled(eps, sizes, samples),
                              noise_of(seed, row_offset), control_of(control), output(z),
                              output(kl), output(dims)},
                 threads);
        });

  m.def("sample_kl_backward",
        [](const py::tuple& sizes, int event_dims, int64_t samples, const py::tuple& inputs,
           const py::object& eps, const py::object& seed, const py::object& row_offset,
           const py::tuple& bounds, const py::tuple& control, const py::object& grad_z,
           const py::object& grad_kl, const py::object& grad_dims, const py::tuple& gradients,
           int threads) {
          launch(&Kernels::sample_kl_backward,
                 SampleKLBackwardArgs{
                     shape_of(sizes, event_dims), samples, gaussian_inputs(inputs, sizes, bounds),
                     sampled(eps, sizes, samples), noise_of(seed, row_offset),
                     sampled(grad_z, sizes, samples),
                     KLUpstream{one_a_row(grad_kl, sizes, event_dims),
                                one_a_column(grad_dims, sizes, event_dims), control_of(control)},
                     gaussian_gradients(gradients)},
                 threads);
        });

  m.def("gaussian_kl_forward",
        [](const py::tuple& sizes, int event_dims, const py::tuple& inputs, const py::tuple& bounds,
           const py::tuple& control, const py::object& kl, int threads) {
          launch(&Kernels::gaussian_kl_forward,
                 GaussianKLArgs{shape_of(sizes, event_dims), gaussian_inputs(inputs, sizes, bounds),
                                control_of(control), output(kl)},
                 threads);
        });

  m.def("gaussian_kl_backward",
        [](const py::tuple& sizes, int event_dims, const py::tuple& inputs, const py::tuple& bounds,
           const py::tuple& control, const py::object& grad_kl, const py::tuple& gradients,
           int threads) {
          launch(&Kernels::gaussian_kl_backward,
                 GaussianKLBackwardArgs{
                     shape_of(sizes, event_dims), gaussian_inputs(inputs, sizes, bounds),
                     KLUpstream{one_a_row(grad_kl, sizes, event_dims), {}, control_of(control)},
                     gaussian_gradients(gradients)},
                 threads);
        });

  m.def("sample_log_weights_forward",
        [](const py::tuple& sizes, int event_dims, int64_t samples, const py::tuple& inputs,
           const py::object& eps, const py::object& seed, const py::object& row_offset,
           uint32_t sample_offset, const py::tuple& bounds, const py::object& z,
           const py::object& log_ratio, int threads) {
          launch(&Kernels::sample_log_weights_forward,
                 SampleLogWeightsArgs{
                     shape_of(sizes, event_dims), samples, gaussian_inputs(inputs, sizes, bounds),
                     sampled(eps, sizes, samples), noise_of(seed, row_offset, sample_offset),
                     output(z), output(log_ratio)},
                 threads);
        });

  m.def("sample_log_weights_backward",
        [](const py::tuple& sizes, int event_dims, int64_t samples, const py::tuple& inputs,
           const py::object& eps, const py::object& seed, const py::object& row_offset,
           uint32_t sample_offset, const py::tuple& bounds, const py::object& grad_z,
           const py::object& grad_log_ratio, const py::object& path_weight, bool path_only,
           const py::tuple& gradients, int threads) {
          launch(&Kernels::sample_log_weights_backward,
                 SampleLogWeightsBackwardArgs{
                     shape_of(sizes, event_dims), samples, gaussian_inputs(inputs, sizes, bounds),
                     sampled(eps, sizes, samples), noise_of(seed, row_offset, sample_offset),
                     sampled(grad_z, sizes, samples),
                     one_a_row(grad_log_ratio, sizes, event_dims, samples),
                     one_a_row(path_weight, sizes, event_dims, samples), path_only,
                     gaussian_gradients(gradients)},
                 threads);
        });

  m.def("importance_weighted_elbo_forward",
        [](int64_t samples, int64_t rows, const py::object& log_weights, const py::object& bound,
           const py::object& weights, int threads) {
          launch(&Kernels::importance_weighted_elbo_forward,
                 ImportanceWeightedELBOArgs{samples, rows, operand(log_weights, py::tuple()),
                                            output(bound), output(weights)},
                 threads);
        });

  m.def("score_function_backward",
        [](const py::tuple& sizes, int event_dims, int64_t samples, const py::tuple& inputs,
           const py::object& eps, const py::object& seed, const py::object& row_offset,
           const py::tuple& bounds, const py::object& weight, const py::tuple& gradients,
           int threads) {
          launch(&Kernels::score_function_backward,
                 ScoreFunctionArgs{shape_of(sizes, event_dims), samples,
                                   gaussian_inputs(inputs, sizes, bounds),
                                   sampled(eps, sizes, samples), noise_of(seed, row_offset),
                                   one_a_row(weight, sizes, event_dims, samples),
                                   output(gradients[0]), output(gradients[1])},
                 threads);
        });

  m.def("squared_error_forward",
        [](const py::tuple& sizes, int event_dims, const py::object& x, const py::object& mean,
           const py::object& squared_error, int threads) {
          launch(&Kernels::squared_error_forward,
                 LogLikelihoodArgs{shape_of(sizes, event_dims),
                                   {operand(x, sizes), operand(mean, sizes), {}, {}},
                                   output(squared_error)},
                 threads);
        });

  m.def("gaussian_log_likelihood_forward", [](const py::tuple& sizes, int event_dims,
                                              const py::tuple& inputs, const py::tuple& bounds,
                                              const py::object& log_likelihood, int threads) {
    launch(&Kernels::gaussian_log_likelihood_forward,
           LogLikelihoodArgs{shape_of(sizes, event_dims), likelihood_inputs(inputs, sizes, bounds),
                             output(log_likelihood)},
           threads);
  });

  m.def("gaussian_log_likelihood_backward",
        [](const py::tuple& sizes, int event_dims, const py::tuple& inputs, const py::tuple& bounds,
           const py::object& grad, const py::tuple& gradients, int threads) {
          launch(&Kernels::gaussian_log_likelihood_backward,
                 LogLikelihoodBackwardArgs{
                     shape_of(sizes, event_dims), likelihood_inputs(inputs, sizes, bounds),
                     one_a_row(grad, sizes, event_dims), likelihood_gradients(gradients)},
                 threads);
        });

  m.def("negative_elbo_forward",
        [](const py::tuple& sizes, int event_dims, int64_t samples, const py::tuple& inputs,
           const py::tuple& bounds, const py::object& kl, const py::tuple& kl_sizes, double beta,
           int reduction, const py::object& loss, const py::object& log_likelihood,
           const py::tuple& gradients, const py::object& grad_kl, int threads) {
          launch(&Kernels::negative_elbo_forward,
                 NegativeELBOArgs{shape_of(sizes, event_dims), samples,
                                  likelihood_inputs(inputs, sizes, bounds), operand(kl, kl_sizes),
                                  beta, static_cast<LossReduction>(reduction), output(loss),
                                  output(log_likelihood), likelihood_gradients(gradients),
                                  output(grad_kl)},
                 threads);
        });
}
