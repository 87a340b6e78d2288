// The module vae_fast._C.cuda: torch's tensors come as they are (tensors.h), and go to the kernels
// as pointers and strides (cuda_views.h); outputs are made here.
//
// Arguments have been checked in vae_fast.functional, and tensors are of dtypes that are read side
// by side. Nothing waits for the device. The GIL is released while a call launches.

#include "bindings/cuda.h"

#include <vector>

#include "bindings/arguments.h"
#include "bindings/cuda_views.h"

namespace py = pybind11;

namespace vae_fast::device {
namespace {

// The seed is an int, a tensor on the device, which the kernel reads, or one elsewhere; None: none.
Noise noise_of(Object seed, Object row_offset, vae_fast::Device device,
               uint32_t sample_offset = 0) {
  Noise noise;
  noise.row_offset = low_bits(row_offset);
  noise.sample_offset = sample_offset;
  if (seed.is_none()) return noise;
  if (!PyLong_Check(seed.ptr())) {
    const TensorView tensor = read_seed(seed);
    // A copy, as of a negated view, is gone when the kernel runs: its value is read here.
    if (tensor.device == device && tensor.tensor.is(seed)) {
      noise.seed_at = static_cast<const int64_t*>(tensor.data);
      return noise;
    }
  }
  noise.seed = low_bits(seed);
  return noise;
}

// A tensor of the samples' shape, and one with a value for each of their rows.
View of_elements(TensorView& tensor, const Gaussian& in, Samples samples) {
  return own_view(tensor, in.count(samples), in.frame.device, samples.has_value(),
                  in.frame.event_dims);
}
View of_rows(TensorView& tensor, const Gaussian& in, Samples samples) {
  return own_view(tensor, in.rows(samples), in.frame.device, samples.has_value());
}

// A value of each row or column, which the kernels read in the type computed in.
TensorView upstream(Object gradient, const Gaussian& in) {
  TensorView view = read(gradient);
  require_dtype(view, compute_dtype(in.wide()));
  return view;
}

// A number, or a tensor of one: read by the kernel if it is on the device. alive keeps it.
Scalar scalar(Object given, vae_fast::Device device, TensorView& alive) {
  Scalar a;
  if (!PyFloat_Check(given.ptr()) && !PyLong_Check(given.ptr())) {
    alive = read(given);
    if (alive.device == device) {
      a.at = alive.data;
      a.dtype = alive.dtype;
      return a;
    }
  }
  a.value = py::float_(given);
  return a;
}

// Working memory of a launch. It comes from torch's caching allocator, which is in the stream's
// order: freed when the call has launched, and whoever gets it next in this stream comes later.
struct Scratch {
  vae_fast::Device device;
  std::vector<NewTensor> memory;

  static void* allocate(void* owner, size_t bytes) {
    const py::gil_scoped_acquire held;
    auto* scratch = static_cast<Scratch*>(owner);
    scratch->memory.push_back(make_bytes(static_cast<int64_t>(bytes), scratch->device));
    return scratch->memory.back().output.data;
  }
};

template <class Args>
void launch(void (*kernel)(const Args&, const Context&), const Args& args,
            vae_fast::Device device) {
  Scratch scratch{device, {}};
  const Context where{device.index, current_stream(device), &scratch, Scratch::allocate};
  const py::gil_scoped_release released;
  kernel(args, where);
}

Axes axes_of(const Gaussian& in) {
  return {in.frame.sizes, in.frame.dims, 0, in.frame.dims - in.frame.event_dims, in.frame.device};
}
Problem problem(const Gaussian& in, Samples samples = {}) {
  const Shape shape = in.frame.shape();
  return {samples.value_or(1), shape.rows, shape.cols};
}
GaussianInputs inputs(Gaussian& in, const py::tuple& bounds) {
  const Axes axes = axes_of(in);
  return {view_of(in.mean, axes, true), view_of(in.logvar, axes), view_of(in.prior_mean, axes),
          view_of(in.prior_logvar, axes), bounds_of(bounds)};
}
GaussianGradients outputs(const NewGradients& made) {
  return {made.mean.output, made.logvar.output, made.prior_mean.output, made.prior_logvar.output};
}

Axes axes_of(const Likelihood& in) {
  return {in.frame.sizes, in.frame.dims, in.shares_x ? 1 : 0, in.frame.dims - in.frame.event_dims,
          in.frame.device};
}
LikelihoodInputs inputs(Likelihood& in, const py::tuple& bounds) {
  const Axes axes = axes_of(in);
  return {view_of(in.x, axes, true), view_of(in.mean, axes, true), view_of(in.logvar, axes),
          bounds_of(bounds)};
}

// What Python calls, by the names of the kernels.
namespace python {

// Not for empty tensors.
void noise(Object eps, Samples samples, int event_dims, Object seed, Object row_offset) {
  const TensorView view = read(eps);
  const Axes axes{view.sizes, view.dims, samples ? 1 : 0, view.dims - event_dims, view.device};
  launch(&device::noise,
         NoiseArgs{axes.problem(),
                   noise_of(seed, row_offset, view.device),
                   {view.data, view.dtype, Reduction::full}},
         view.device);
}

py::tuple sample_kl_forward(Object mean, Object logvar, Object prior_mean, Object prior_logvar,
                            Object eps, Object seed, Samples samples, int event_dims,
                            Object row_offset, const py::tuple& bounds, const py::tuple& control,
                            bool return_dims) {
  Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const DType dtype = compute_dtype(in.wide());
  const NewTensor z = make_samples(in.frame, in.mean.dtype, samples);
  const NewTensor kl = make_rows(in.frame, dtype);
  const NewTensor dims = return_dims ? make_columns(in.frame, dtype) : NewTensor{};
  const Problem shape = problem(in, samples);
  if (is_empty(shape)) {
    for (const NewTensor* each : {&kl, &dims}) fill_zero(*each);
  } else {
    TensorView given = read(eps);
    launch(&device::sample_kl_forward,
           SampleKLArgs{shape, inputs(in, bounds), of_elements(given, in, samples),
                        noise_of(seed, row_offset, in.frame.device), control_of(control), z.output,
                        kl.output, dims.output},
           in.frame.device);
  }
  return py::make_tuple(z.tensor, kl.tensor, dims.tensor);
}

py::tuple sample_kl_backward(Object grad_z, Object grad_kl, Object grad_dims, Object mean,
                             Object logvar, Object prior_mean, Object prior_logvar, Object eps,
                             Object seed, Samples samples, int event_dims, Object row_offset,
                             const py::tuple& bounds, const py::tuple& control,
                             const py::tuple& needs) {
  Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const NewGradients gradients(in, needs);
  const Problem shape = problem(in, samples);
  if (is_empty(shape) || (grad_z.is_none() && grad_kl.is_none() && grad_dims.is_none()))
    return gradients.zeros();
  TensorView given = read(eps), by_z = read(grad_z), by_kl = upstream(grad_kl, in),
             by_dims = upstream(grad_dims, in);
  launch(&device::sample_kl_backward,
         SampleKLBackwardArgs{
             shape, inputs(in, bounds), of_elements(given, in, samples),
             noise_of(seed, row_offset, in.frame.device), control_of(control),
             of_elements(by_z, in, samples), of_rows(by_kl, in, {}),
             own_view(by_dims, in.frame.shape().cols, in.frame.device, false, event_dims),
             outputs(gradients)},
         in.frame.device);
  return gradients.tensors();
}

py::object gaussian_kl_forward(Object mean, Object logvar, Object prior_mean, Object prior_logvar,
                               int event_dims, const py::tuple& bounds, const py::tuple& control) {
  Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const NewTensor kl = make_rows(in.frame, compute_dtype(in.wide()));
  if (is_empty(problem(in))) {
    fill_zero(kl);
  } else {
    launch(&device::gaussian_kl_forward,
           SampleKLArgs{
               problem(in), inputs(in, bounds), {}, {}, control_of(control), {}, kl.output, {}},
           in.frame.device);
  }
  return kl.tensor;
}

py::tuple gaussian_kl_backward(Object grad_kl, Object mean, Object logvar, Object prior_mean,
                               Object prior_logvar, int event_dims, const py::tuple& bounds,
                               const py::tuple& control, const py::tuple& needs) {
  Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const NewGradients gradients(in, needs);
  if (is_empty(problem(in))) return gradients.zeros();
  TensorView by_kl = upstream(grad_kl, in);
  launch(&device::gaussian_kl_backward,
         SampleKLBackwardArgs{problem(in),
                              inputs(in, bounds),
                              {},
                              {},
                              control_of(control),
                              {},
                              of_rows(by_kl, in, {}),
                              {},
                              outputs(gradients)},
         in.frame.device);
  return gradients.tensors();
}

py::tuple sample_log_weights_forward(Object mean, Object logvar, Object prior_mean,
                                     Object prior_logvar, Object eps, Object seed, Samples samples,
                                     int event_dims, Object row_offset, uint32_t sample_offset,
                                     const py::tuple& bounds) {
  Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const NewTensor z = make_samples(in.frame, in.mean.dtype, samples);
  const NewTensor log_ratio = make_rows(in.frame, compute_dtype(in.wide()), samples);
  const Problem shape = problem(in, samples);
  if (is_empty(shape)) {
    fill_zero(log_ratio);
  } else {
    TensorView given = read(eps);
    launch(&device::sample_log_weights_forward,
           LogWeightsArgs{shape, inputs(in, bounds), of_elements(given, in, samples),
                          noise_of(seed, row_offset, in.frame.device, sample_offset), z.output,
                          log_ratio.output},
           in.frame.device);
  }
  return py::make_tuple(z.tensor, log_ratio.tensor);
}

py::tuple sample_log_weights_backward(Object grad_z, Object grad_log_ratio, Object path_weight,
                                      Object mean, Object logvar, Object prior_mean,
                                      Object prior_logvar, Object eps, Object seed, Samples samples,
                                      int event_dims, Object row_offset, uint32_t sample_offset,
                                      const py::tuple& bounds, bool path_only,
                                      const py::tuple& needs) {
  Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const NewGradients gradients(in, needs);
  const Problem shape = problem(in, samples);
  if (is_empty(shape) || (grad_z.is_none() && grad_log_ratio.is_none())) return gradients.zeros();
  TensorView given = read(eps), by_z = read(grad_z), by_ratio = upstream(grad_log_ratio, in),
             weight = upstream(path_weight, in);
  launch(&device::sample_log_weights_backward,
         LogWeightsBackwardArgs{shape, inputs(in, bounds), of_elements(given, in, samples),
                                noise_of(seed, row_offset, in.frame.device, sample_offset),
                                of_elements(by_z, in, samples), of_rows(by_ratio, in, samples),
                                of_rows(weight, in, samples), path_only, outputs(gradients)},
         in.frame.device);
  return gradients.tensors();
}

// log_weights: [K, *batch].
py::tuple importance_weighted_elbo_forward(Object log_weights) {
  TensorView in = read(log_weights);
  const py::object kept = in.tensor;
  const Frame frame{in.sizes + 1, in.dims - 1, 0, in.device};
  const Axes axes{in.sizes, in.dims, 1, in.dims, in.device};
  const DType dtype = compute_dtype(in.is_double());
  const NewTensor bound = make_rows(frame, dtype);
  const NewTensor weights = make_samples(frame, dtype, in.sizes[0]);
  if (!is_empty(axes.problem())) {
    launch(&device::importance_weighted_elbo_forward,
           ImportanceArgs{axes.problem(), view_of(in, axes), bound.output, weights.output},
           frame.device);
  }
  return py::make_tuple(bound.tensor, weights.tensor);
}

// Of the mean there is only the gradient, in the dtype that it would be read in.
py::tuple score_function_backward(Object grad, Object weight, Object mean, int dtype, Object logvar,
                                  Object eps, Object seed, Samples samples, int event_dims,
                                  Object row_offset, const py::tuple& bounds,
                                  const py::tuple& needs) {
  Gaussian in(mean, logvar, py::none(), py::none(), event_dims);
  in.mean.dtype = static_cast<DType>(dtype);
  const NewTensor grad_mean = NewGradients::make(needs, 0, in.mean, in.frame);
  const NewTensor grad_logvar = NewGradients::make(needs, 1, in.logvar, in.frame);
  const Problem shape = problem(in, samples);
  if (is_empty(shape)) {
    for (const NewTensor* each : {&grad_mean, &grad_logvar}) fill_zero(*each);
  } else {
    TensorView given = read(eps), upstream = read(grad), weights = read(weight);
    launch(&device::score_function_backward,
           ScoreFunctionArgs{
               shape, in.mean.dtype, of_rows(upstream, in, samples), of_rows(weights, in, samples),
               view_of(in.logvar, axes_of(in)), bounds_of(bounds), of_elements(given, in, samples),
               noise_of(seed, row_offset, in.frame.device), grad_mean.output, grad_logvar.output},
           in.frame.device);
  }
  return py::make_tuple(grad_mean.tensor, grad_logvar.tensor);
}

template <void (*kKernel)(const LogLikelihoodArgs&, const Context&)>
py::object row_value(Object x, Object mean, Object logvar, int event_dims,
                     const py::tuple& bounds) {
  Likelihood in(x, mean, logvar, event_dims);
  const NewTensor value = make_rows(in.frame, compute_dtype(in.wide()));
  const Problem shape = axes_of(in).problem();
  if (is_empty(shape))
    fill_zero(value);
  else
    launch(kKernel, LogLikelihoodArgs{shape, inputs(in, bounds), value.output}, in.frame.device);
  return value.tensor;
}

// grad: broadcastable to [*samples, *batch], and multiplied by scale.
py::tuple gaussian_log_likelihood_backward(Object grad, double scale, Object x, Object mean,
                                           Object logvar, int event_dims, const py::tuple& bounds,
                                           const py::tuple& needs) {
  Likelihood in(x, mean, logvar, event_dims);
  const NewTensor grad_x = in.new_grad_x(needs, in.wide());
  const NewTensor grad_mean = NewGradients::make(needs, 1, in.mean, in.frame);
  const NewTensor grad_logvar = NewGradients::make(needs, 2, in.logvar, in.frame);
  const Axes axes = axes_of(in);
  if (is_empty(axes.problem())) {
    for (const NewTensor* each : {&grad_x, &grad_mean, &grad_logvar}) fill_zero(*each);
  } else {
    TensorView upstream = read(grad);
    const Axes rows{axes.sizes, axes.last, axes.first, axes.last, axes.device};
    launch(&device::gaussian_log_likelihood_backward,
           LogLikelihoodBackwardArgs{axes.problem(),
                                     inputs(in, bounds),
                                     view_of(upstream, rows),
                                     scale,
                                     {grad_x.output, grad_mean.output, grad_logvar.output}},
           in.frame.device);
  }
  return py::make_tuple(grad_x.tensor, grad_mean.tensor, grad_logvar.tensor);
}

// Not for empty tensors.
py::tuple negative_elbo_forward(Object x, Object mean, Object logvar, Object kl, Object beta,
                                int reduction, int event_dims, const py::tuple& bounds,
                                const py::tuple& needs) {
  Likelihood in(x, mean, logvar, event_dims);
  TensorView divergence = read(kl), beta_alive;
  const auto how = static_cast<LossReduction>(reduction);
  const NewLoss made(in, divergence, how, needs,
                     compute_dtype(in.wide() || divergence.is_double()));
  launch(&device::negative_elbo_forward,
         NegativeELBOArgs{axes_of(in).problem(),
                          inputs(in, bounds),
                          own_view(divergence, axes_of(in).problem().rows, in.frame.device, false),
                          scalar(beta, in.frame.device, beta_alive),
                          how,
                          made.loss.output,
                          made.log_likelihood.output,
                          {{}, made.grad_mean.output, made.grad_logvar.output},
                          made.grad_kl.output},
         in.frame.device);
  return made.tensors();
}

// Contiguous gradients, None among them, multiplied in place by a tensor of one number.
void scale(const py::tuple& gradients, Object factor) {
  ScaleArgs args{};
  TensorView alive;
  vae_fast::Device device;
  for (const py::handle each : gradients) {
    const TensorView gradient = read(py::reinterpret_borrow<py::object>(each));
    if (!gradient.given()) continue;
    const int64_t count = gradient.count();
    if (count == 0) continue;
    device = gradient.device;
    args.elements[args.count] = count;
    args.gradients[args.count++] = {gradient.data, gradient.dtype, Reduction::full};
  }
  if (args.count == 0) return;
  args.factor = scalar(factor, device, alive);
  launch(&device::scale, args, device);
}

}  // namespace python

}  // namespace

void bind(py::module_& m) {
  m.doc() = "CUDA kernels. Private: vae_fast.functional checks the arguments.";
  m.def("driver_version", &driver_version);
  m.def("noise", &python::noise);
  m.def("sample_kl_forward", &python::sample_kl_forward);
  m.def("sample_kl_backward", &python::sample_kl_backward);
  m.def("gaussian_kl_forward", &python::gaussian_kl_forward);
  m.def("gaussian_kl_backward", &python::gaussian_kl_backward);
  m.def("sample_log_weights_forward", &python::sample_log_weights_forward);
  m.def("sample_log_weights_backward", &python::sample_log_weights_backward);
  m.def("importance_weighted_elbo_forward", &python::importance_weighted_elbo_forward);
  m.def("score_function_backward", &python::score_function_backward);
  m.def("gaussian_log_likelihood_forward",
        &python::row_value<&device::gaussian_log_likelihood_forward>);
  m.def("squared_error_forward", &python::row_value<&device::squared_error_forward>);
  m.def("gaussian_log_likelihood_backward", &python::gaussian_log_likelihood_backward);
  m.def("negative_elbo_forward", &python::negative_elbo_forward);
  m.def("scale", &python::scale);
}

}  // namespace vae_fast::device
