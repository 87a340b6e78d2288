// The module vae_fast._C.cuda: inputs come as (pointer, dtype, strides of sample, row and column),
// outputs as (pointer, dtype, reduction), and what is not given as None.
//
// context is (device, stream, allocate): allocate(bytes) gives a pointer to working memory.
// Arguments have been checked in vae_fast.functional; the GIL is released while a call launches.

#include "cuda_bindings.h"

#include "cuda/kernels.h"

namespace py = pybind11;

namespace vae_fast::device {
namespace {

PyObject* field(const py::object& tuple, int index) { return PyTuple_GET_ITEM(tuple.ptr(), index); }
int64_t integer(const py::object& tuple, int index) {
  return PyLong_AsLongLong(field(tuple, index));
}
py::object object(const py::object& tuple, int index) {
  return py::reinterpret_borrow<py::object>(field(tuple, index));
}

View view(const py::object& given) {
  View a;
  if (given.is_none()) return a;
  a.data = PyLong_AsVoidPtr(field(given, 0));
  a.dtype = static_cast<DType>(integer(given, 1));
  a.sample_stride = integer(given, 2);
  a.row_stride = integer(given, 3);
  a.col_stride = integer(given, 4);
  return a;
}

Output output(const py::object& given) {
  Output a;
  if (given.is_none()) return a;
  a.data = PyLong_AsVoidPtr(field(given, 0));
  a.dtype = static_cast<DType>(integer(given, 1));
  a.reduction = static_cast<Reduction>(integer(given, 2));
  return a;
}

Problem problem(const py::tuple& sizes) {
  return {integer(sizes, 0), integer(sizes, 1), integer(sizes, 2)};
}

LogVarBounds bounds_of(const py::tuple& bounds) {
  return {bounds[0].cast<double>(), bounds[1].cast<double>()};
}

KLControl control_of(const py::tuple& control) {
  return {control[0].cast<double>(), control[1].cast<double>(), control[2].cast<double>()};
}

GaussianInputs gaussian_inputs(const py::tuple& inputs, const py::tuple& bounds) {
  return {view(object(inputs, 0)), view(object(inputs, 1)), view(object(inputs, 2)),
          view(object(inputs, 3)), bounds_of(bounds)};
}

GaussianGradients gaussian_gradients(const py::tuple& out) {
  return {output(object(out, 0)), output(object(out, 1)), output(object(out, 2)),
          output(object(out, 3))};
}

LikelihoodInputs likelihood_inputs(const py::tuple& inputs, const py::tuple& bounds) {
  return {view(object(inputs, 0)), view(object(inputs, 1)), view(object(inputs, 2)),
          bounds_of(bounds)};
}

LikelihoodGradients likelihood_gradients(const py::tuple& out) {
  return {output(object(out, 0)), output(object(out, 1)), output(object(out, 2))};
}

// (seed, None), or (None, pointer to it on the device); and the row offset.
Noise noise_of(const py::tuple& given, uint32_t sample_offset = 0) {
  Noise noise;
  noise.sample_offset = sample_offset;
  noise.row_offset = PyLong_AsUnsignedLongLong(field(given, 2));
  if (field(given, 1) != Py_None)
    noise.seed_at = static_cast<const int64_t*>(PyLong_AsVoidPtr(field(given, 1)));
  else
    noise.seed = PyLong_AsUnsignedLongLong(field(given, 0));
  return noise;
}

// A number, or (pointer, dtype) of one on the device.
Scalar scalar(const py::object& given) {
  Scalar a;
  if (!PyTuple_Check(given.ptr())) {
    a.value = given.cast<double>();
    return a;
  }
  a.at = PyLong_AsVoidPtr(field(given, 0));
  a.dtype = static_cast<DType>(integer(given, 1));
  return a;
}

void* allocate(void* owner, size_t bytes) {
  const py::gil_scoped_acquire held;
  const py::handle function(static_cast<PyObject*>(owner));
  return PyLong_AsVoidPtr(function(bytes).ptr());
}

template <class Args>
void launch(void (*kernel)(const Args&, const Context&), const Args& args,
            const py::tuple& context) {
  const Context where{static_cast<int>(integer(context, 0)), PyLong_AsVoidPtr(field(context, 1)),
                      field(context, 2), allocate};
  if (PyErr_Occurred()) throw py::error_already_set();
  const py::gil_scoped_release released;
  kernel(args, where);
}

template <void (*kKernel)(const SampleKLArgs&, const Context&)>
void forward(const py::tuple& shape, const py::tuple& inputs, const py::tuple& bounds,
             const py::object& eps, const py::tuple& noise, const py::tuple& control,
             const py::object& z, const py::object& kl, const py::object& dims,
             const py::tuple& context) {
  launch(kKernel,
         SampleKLArgs{problem(shape), gaussian_inputs(inputs, bounds), view(eps), noise_of(noise),
                      control_of(control), output(z), output(kl), output(dims)},
         context);
}

template <void (*kKernel)(const SampleKLBackwardArgs&, const Context&)>
void backward(const py::tuple& shape, const py::tuple& inputs, const py::tuple& bounds,
              const py::object& eps, const py::tuple& noise, const py::tuple& control,
              const py::object& grad_z, const py::object& grad_kl, const py::object& grad_dims,
              const py::tuple& gradients, const py::tuple& context) {
  launch(kKernel,
         SampleKLBackwardArgs{problem(shape), gaussian_inputs(inputs, bounds), view(eps),
                              noise_of(noise), control_of(control), view(grad_z), view(grad_kl),
                              view(grad_dims), gaussian_gradients(gradients)},
         context);
}

template <void (*kKernel)(const LogLikelihoodArgs&, const Context&)>
void row_value(const py::tuple& shape, const py::tuple& inputs, const py::tuple& bounds,
               const py::object& value, const py::tuple& context) {
  launch(kKernel,
         LogLikelihoodArgs{problem(shape), likelihood_inputs(inputs, bounds), output(value)},
         context);
}

void bind_estimators(py::module_& m) {
  m.def("sample_log_weights_forward",
        [](const py::tuple& shape, const py::tuple& inputs, const py::tuple& bounds,
           const py::object& eps, const py::tuple& noise, uint32_t sample_offset,
           const py::object& z, const py::object& log_ratio, const py::tuple& context) {
          launch(&sample_log_weights_forward,
                 LogWeightsArgs{problem(shape), gaussian_inputs(inputs, bounds), view(eps),
                                noise_of(noise, sample_offset), output(z), output(log_ratio)},
                 context);
        });
  m.def(
      "sample_log_weights_backward",
      [](const py::tuple& shape, const py::tuple& inputs, const py::tuple& bounds,
         const py::object& eps, const py::tuple& noise, uint32_t sample_offset,
         const py::object& grad_z, const py::object& grad_log_ratio, const py::object& path_weight,
         bool path_only, const py::tuple& gradients, const py::tuple& context) {
        launch(&sample_log_weights_backward,
               LogWeightsBackwardArgs{problem(shape), gaussian_inputs(inputs, bounds), view(eps),
                                      noise_of(noise, sample_offset), view(grad_z),
                                      view(grad_log_ratio), view(path_weight), path_only,
                                      gaussian_gradients(gradients)},
               context);
      });
  m.def("importance_weighted_elbo_forward",
        [](const py::tuple& shape, const py::object& log_weights, const py::object& bound,
           const py::object& weights, const py::tuple& context) {
          launch(&importance_weighted_elbo_forward,
                 ImportanceArgs{problem(shape), view(log_weights), output(bound), output(weights)},
                 context);
        });
  m.def("score_function_backward",
        [](const py::tuple& shape, int dtype, const py::object& weight, const py::object& logvar,
           const py::tuple& bounds, const py::object& eps, const py::tuple& noise,
           const py::object& grad_mean, const py::object& grad_logvar, const py::tuple& context) {
          launch(&score_function_backward,
                 ScoreFunctionArgs{problem(shape), static_cast<DType>(dtype), view(weight),
                                   view(logvar), bounds_of(bounds), view(eps), noise_of(noise),
                                   output(grad_mean), output(grad_logvar)},
                 context);
        });
}

}  // namespace

void bind(py::module_& m) {
  m.doc() = "CUDA kernels. Private: vae_fast.functional checks the arguments.";
  m.def("driver_version", &driver_version);
  m.def("noise", [](const py::tuple& shape, const py::tuple& seed, const py::object& eps,
                    const py::tuple& context) {
    launch(&noise, NoiseArgs{problem(shape), noise_of(seed), output(eps)}, context);
  });
  m.def("sample_kl_forward", &forward<sample_kl_forward>);
  m.def("sample_kl_backward", &backward<sample_kl_backward>);
  m.def("gaussian_kl_forward", &forward<gaussian_kl_forward>);
  m.def("gaussian_kl_backward", &backward<gaussian_kl_backward>);
  bind_estimators(m);
  m.def("gaussian_log_likelihood_forward", &row_value<gaussian_log_likelihood_forward>);
  m.def("squared_error_forward", &row_value<squared_error_forward>);
  m.def("gaussian_log_likelihood_backward",
        [](const py::tuple& shape, const py::tuple& inputs, const py::tuple& bounds,
           const py::object& grad, double scale, const py::tuple& gradients,
           const py::tuple& context) {
          launch(&gaussian_log_likelihood_backward,
                 LogLikelihoodBackwardArgs{problem(shape), likelihood_inputs(inputs, bounds),
                                           view(grad), scale, likelihood_gradients(gradients)},
                 context);
        });
  m.def("negative_elbo_forward",
        [](const py::tuple& shape, const py::tuple& inputs, const py::tuple& bounds,
           const py::object& kl, const py::object& beta, int reduction, const py::object& loss,
           const py::object& log_likelihood, const py::tuple& gradients, const py::object& grad_kl,
           const py::tuple& context) {
          launch(&negative_elbo_forward,
                 NegativeELBOArgs{problem(shape), likelihood_inputs(inputs, bounds), view(kl),
                                  scalar(beta), static_cast<LossReduction>(reduction), output(loss),
                                  output(log_likelihood), likelihood_gradients(gradients),
                                  output(grad_kl)},
                 context);
        });
  // gradients: (pointer, dtype, elements) each.
  m.def("scale", [](const py::tuple& gradients, const py::object& factor,
                    const py::tuple& context) {
    ScaleArgs args{};
    args.factor = scalar(factor);
    for (const py::handle each : gradients) {
      const auto gradient = py::reinterpret_borrow<py::object>(each);
      args.elements[args.count] = integer(gradient, 2);
      args.gradients[args.count++] = {PyLong_AsVoidPtr(field(gradient, 0)),
                                      static_cast<DType>(integer(gradient, 1)), Reduction::full};
    }
    launch(&scale, args, context);
  });
}

}  // namespace vae_fast::device
