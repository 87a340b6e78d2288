// The module vae_fast._C: torch's tensors come as they are and go to the kernels, which know
// nothing of them; outputs are made here.
//
// Nothing here needs Torch's headers, so one build serves every version of it (tensors.h).
// Arguments have been checked in vae_fast.functional; the GIL is released while a kernel runs that
// may take long.

#include "bindings/arguments.h"
#include "common/philox.h"
#include "cpu/kernels.h"
#if defined(VF_HAVE_CUDA)
#include "bindings/cuda.h"
#endif

namespace py = pybind11;
using namespace vae_fast;

namespace {

Noise noise_of(Object seed, Object row_offset, uint32_t sample_offset = 0) {
  return {low_bits(seed), low_bits(row_offset), sample_offset};
}

void require_cpu(const TensorView& tensor) { require_count(tensor, tensor.count(), Device{}); }

GaussianInputs inputs(const Gaussian& in, const py::tuple& bounds) {
  require_cpu(in.mean);
  return {operand(in.mean, in.frame), operand(in.logvar, in.frame),
          operand(in.prior_mean, in.frame), operand(in.prior_logvar, in.frame), bounds_of(bounds)};
}

LikelihoodInputs inputs(const Likelihood& in, const py::tuple& bounds) {
  require_cpu(in.mean);
  return {operand(in.x, in.frame), operand(in.mean, in.frame), operand(in.logvar, in.frame),
          bounds_of(bounds)};
}

GaussianGradients outputs(const NewGradients& made) {
  return {made.mean.output, made.logvar.output, made.prior_mean.output, made.prior_logvar.output};
}

// Elements of a call in float32 for which it takes 3 us, and 15 without AVX (AMD EPYC): to release
// the GIL would cost a tenth of that, nobody waits for it so long, and one thread does it.
constexpr int64_t kShort = 1 << 12;

int64_t elements(const ImportanceWeightedELBOArgs& args) { return args.samples * args.rows; }
template <class Args>
auto elements(const Args& args) -> decltype(args.samples * args.shape.rows) {
  return args.samples * args.shape.rows * args.shape.cols;
}
int64_t elements(const GaussianKLArgs& args) { return args.shape.rows * args.shape.cols; }
int64_t elements(const GaussianKLBackwardArgs& args) { return args.shape.rows * args.shape.cols; }
int64_t elements(const LogLikelihoodArgs& args) { return args.shape.rows * args.shape.cols; }
int64_t elements(const LogLikelihoodBackwardArgs& args) {
  return args.shape.rows * args.shape.cols;
}

template <class Args>
void launch(void (*Kernels::*kernel)(const Args&, int, bool), const Args& args, bool wide) {
  if (!wide && elements(args) <= kShort) return (kernels().*kernel)(args, 1, wide);
  const int threads = num_threads();
  const py::gil_scoped_release released;
  (kernels().*kernel)(args, threads, wide);
}

py::dict build_info() {
  py::dict info;
  info["version"] = VF_VERSION;
  info["compiler"] = VF_COMPILER;
  info["flags"] = VF_FLAGS;
  info["cuda_version"] = VF_CUDA_VERSION;
  info["cuda_architectures"] = VF_CUDA_ARCHS;
  info["instruction_sets"] = VF_ISAS;
  info["instruction_set"] = kernels().name;
  return info;
}

// The value of a float32 or float64 tensor of one element, which Tensor.item() gives in some 6 us
// where its code is not in the cache (AMD Zen 5).
double value(Object tensor) {
  const TensorView view = read(tensor);
  return view.is_double() ? *static_cast<const double*>(view.data)
                          : *static_cast<const float*>(view.data);
}

// What Tensor.random_ writes to an int64 tensor of one element on a CUDA device whose generator has
// this seed and this offset, a multiple of 4: the first two words of a Philox block.
uint64_t cuda_draw(uint64_t seed, uint64_t offset) {
  const uint64_t block = offset / 4;
  uint32_t words[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0};
  device::philox4x32_10(words, seed);
  return static_cast<uint64_t>(words[0]) << 32 | words[1];
}

void noise(Object eps, Samples samples, int event_dims, Object seed, Object row_offset) {
  const TensorView view = read(eps);
  const int lead = samples ? 1 : 0;
  const Frame frame{view.sizes + lead, view.dims - lead, event_dims};
  launch(&Kernels::noise,
         NoiseArgs{frame.shape(),
                   samples.value_or(1),
                   noise_of(seed, row_offset),
                   {view.data, view.dtype, Reduction::full}},
         view.is_double());
}

py::tuple sample_kl_forward(Object mean, Object logvar, Object prior_mean, Object prior_logvar,
                            Object eps, Object seed, Samples samples, int event_dims,
                            Object row_offset, const py::tuple& bounds, const py::tuple& control,
                            bool return_dims) {
  const Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const DType dtype = compute_dtype(in.wide());
  const TensorView noise = read(eps);
  const NewTensor z = make_samples(in.frame, in.mean.dtype, samples);
  const NewTensor kl = make_rows(in.frame, dtype);
  const NewTensor dims = return_dims ? make_columns(in.frame, dtype) : NewTensor{};
  launch(&Kernels::sample_kl_forward,
         SampleKLArgs{in.frame.shape(), samples.value_or(1), inputs(in, bounds),
                      operand(noise, in.count(samples)), noise_of(seed, row_offset),
                      control_of(control), z.output, kl.output, dims.output},
         in.wide());
  return py::make_tuple(z.tensor, kl.tensor, dims.tensor);
}

py::tuple sample_kl_backward(Object grad_z, Object grad_kl, Object grad_dims, Object mean,
                             Object logvar, Object prior_mean, Object prior_logvar, Object eps,
                             Object seed, Samples samples, int event_dims, Object row_offset,
                             const py::tuple& bounds, const py::tuple& control,
                             const py::tuple& needs) {
  const Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const NewGradients gradients(in, needs);
  if (grad_z.is_none() && grad_kl.is_none() && grad_dims.is_none()) return gradients.zeros();
  const TensorView noise = read(eps), by_z = read(grad_z), by_kl = read(grad_kl),
                   by_dims = read(grad_dims);
  launch(
      &Kernels::sample_kl_backward,
      SampleKLBackwardArgs{in.frame.shape(), samples.value_or(1), inputs(in, bounds),
                           operand(noise, in.count(samples)), noise_of(seed, row_offset),
                           operand(by_z, in.count(samples)),
                           KLUpstream{operand(by_kl, in.frame.shape().rows),
                                      operand(by_dims, in.frame.shape().cols), control_of(control)},
                           outputs(gradients)},
      in.wide());
  return gradients.tensors();
}

py::object gaussian_kl_forward(Object mean, Object logvar, Object prior_mean, Object prior_logvar,
                               int event_dims, const py::tuple& bounds, const py::tuple& control) {
  const Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const NewTensor kl = make_rows(in.frame, compute_dtype(in.wide()));
  launch(&Kernels::gaussian_kl_forward,
         GaussianKLArgs{in.frame.shape(), inputs(in, bounds), control_of(control), kl.output},
         in.wide());
  return kl.tensor;
}

py::tuple gaussian_kl_backward(Object grad_kl, Object mean, Object logvar, Object prior_mean,
                               Object prior_logvar, int event_dims, const py::tuple& bounds,
                               const py::tuple& control, const py::tuple& needs) {
  const Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const NewGradients gradients(in, needs);
  const TensorView by_kl = read(grad_kl);
  launch(&Kernels::gaussian_kl_backward,
         GaussianKLBackwardArgs{
             in.frame.shape(), inputs(in, bounds),
             KLUpstream{operand(by_kl, in.frame.shape().rows), {}, control_of(control)},
             outputs(gradients)},
         in.wide());
  return gradients.tensors();
}

py::tuple sample_log_weights_forward(Object mean, Object logvar, Object prior_mean,
                                     Object prior_logvar, Object eps, Object seed, Samples samples,
                                     int event_dims, Object row_offset, uint32_t sample_offset,
                                     const py::tuple& bounds) {
  const Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const TensorView noise = read(eps);
  const NewTensor z = make_samples(in.frame, in.mean.dtype, samples);
  const NewTensor log_ratio = make_rows(in.frame, compute_dtype(in.wide()), samples);
  launch(
      &Kernels::sample_log_weights_forward,
      SampleLogWeightsArgs{in.frame.shape(), samples.value_or(1), inputs(in, bounds),
                           operand(noise, in.count(samples)),
                           noise_of(seed, row_offset, sample_offset), z.output, log_ratio.output},
      in.wide());
  return py::make_tuple(z.tensor, log_ratio.tensor);
}

py::tuple sample_log_weights_backward(Object grad_z, Object grad_log_ratio, Object path_weight,
                                      Object mean, Object logvar, Object prior_mean,
                                      Object prior_logvar, Object eps, Object seed, Samples samples,
                                      int event_dims, Object row_offset, uint32_t sample_offset,
                                      const py::tuple& bounds, bool path_only,
                                      const py::tuple& needs) {
  const Gaussian in(mean, logvar, prior_mean, prior_logvar, event_dims);
  const NewGradients gradients(in, needs);
  if (grad_z.is_none() && grad_log_ratio.is_none()) return gradients.zeros();
  const TensorView noise = read(eps), by_z = read(grad_z), by_ratio = read(grad_log_ratio),
                   weight = read(path_weight);
  launch(&Kernels::sample_log_weights_backward,
         SampleLogWeightsBackwardArgs{
             in.frame.shape(), samples.value_or(1), inputs(in, bounds),
             operand(noise, in.count(samples)), noise_of(seed, row_offset, sample_offset),
             operand(by_z, in.count(samples)), operand(by_ratio, in.rows(samples)),
             operand(weight, in.rows(samples)), path_only, outputs(gradients)},
         in.wide());
  return gradients.tensors();
}

// log_weights: [K, *batch], contiguous, float32 or float64.
py::tuple importance_weighted_elbo_forward(Object log_weights) {
  const TensorView in = read(log_weights);
  const Frame frame{in.sizes + 1, in.dims - 1, 0};
  const NewTensor bound = make_rows(frame, in.dtype);
  const NewTensor weights = make_samples(frame, in.dtype, in.sizes[0]);
  launch(&Kernels::importance_weighted_elbo_forward,
         ImportanceWeightedELBOArgs{in.sizes[0], frame.shape().rows, operand(in, in.count()),
                                    bound.output, weights.output},
         in.is_double());
  return py::make_tuple(bound.tensor, weights.tensor);
}

py::tuple score_function_backward(Object grad, Object weight, Object mean, Object logvar,
                                  Object eps, Object seed, Samples samples, int event_dims,
                                  Object row_offset, const py::tuple& bounds,
                                  const py::tuple& needs) {
  const Gaussian in(mean, logvar, py::none(), py::none(), event_dims);
  const NewGradients gradients(in, needs);
  const TensorView noise = read(eps), upstream = read(grad), weights = read(weight);
  launch(&Kernels::score_function_backward,
         ScoreFunctionArgs{in.frame.shape(), samples.value_or(1), inputs(in, bounds),
                           operand(noise, in.count(samples)), noise_of(seed, row_offset),
                           operand(upstream, in.rows(samples)), operand(weights, in.rows(samples)),
                           gradients.mean.output, gradients.logvar.output},
         in.wide());
  return py::make_tuple(gradients.mean.tensor, gradients.logvar.tensor);
}

template <void (*Kernels::*kKernel)(const LogLikelihoodArgs&, int, bool)>
py::object row_value(Object x, Object mean, Object logvar, int event_dims,
                     const py::tuple& bounds) {
  const Likelihood in(x, mean, logvar, event_dims);
  const NewTensor value = make_rows(in.frame, compute_dtype(in.wide()));
  launch(kKernel, LogLikelihoodArgs{in.frame.shape(), inputs(in, bounds), value.output}, in.wide());
  return value.tensor;
}

// Without a log-variance there is nothing to clamp.
py::object squared_error_forward(Object x, Object mean, int event_dims) {
  return row_value<&Kernels::squared_error_forward>(x, mean, py::none(), event_dims,
                                                    py::make_tuple(0.0, 0.0));
}

// grad: [*samples, *batch], and multiplied by scale. In float64, all is computed in it.
py::tuple gaussian_log_likelihood_backward(Object grad, double scale, Object x, Object mean,
                                           Object logvar, int event_dims, const py::tuple& bounds,
                                           const py::tuple& needs) {
  const Likelihood in(x, mean, logvar, event_dims);
  const TensorView upstream = read(grad);
  const bool wide = in.wide() || upstream.is_double();
  const NewTensor grad_x = in.new_grad_x(needs, wide);
  const NewTensor grad_mean = NewGradients::make(needs, 1, in.mean, in.frame);
  const NewTensor grad_logvar = NewGradients::make(needs, 2, in.logvar, in.frame);
  launch(&Kernels::gaussian_log_likelihood_backward,
         LogLikelihoodBackwardArgs{in.frame.shape(),
                                   inputs(in, bounds),
                                   operand(upstream, in.frame.shape().rows),
                                   scale,
                                   {grad_x.output, grad_mean.output, grad_logvar.output}},
         wide);
  return py::make_tuple(grad_x.tensor, grad_mean.tensor, grad_logvar.tensor);
}

py::tuple negative_elbo_forward(Object x, Object mean, Object logvar, Object kl, double beta,
                                int reduction, int event_dims, const py::tuple& bounds,
                                const py::tuple& needs) {
  const Likelihood in(x, mean, logvar, event_dims);
  const TensorView divergence = read(kl);
  const auto how = static_cast<LossReduction>(reduction);
  const bool wide = in.wide() || divergence.is_double();
  const NewLoss made(in, divergence, how, needs, compute_dtype(wide));
  launch(&Kernels::negative_elbo_forward,
         NegativeELBOArgs{in.frame.shape(),
                          in.samples(),
                          inputs(in, bounds),
                          operand(divergence, in.frame.shape().rows / in.samples()),
                          beta,
                          how,
                          made.loss.output,
                          made.log_likelihood.output,
                          {{}, made.grad_mean.output, made.grad_logvar.output},
                          made.grad_kl.output},
         wide);
  return made.tensors();
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels. Private: vae_fast.functional checks the arguments.";

#if defined(VF_HAVE_CUDA)
  auto cuda = m.def_submodule("cuda");
  device::bind(cuda);
#endif

  m.def("build_info", &build_info);  // how the module was built, and what it runs on
  m.def("connect", &connect);
  m.def("value", &value);
  m.def("cuda_draw", &cuda_draw);
  m.def("noise", &noise);
  m.def("sample_kl_forward", &sample_kl_forward);
  m.def("sample_kl_backward", &sample_kl_backward);
  m.def("gaussian_kl_forward", &gaussian_kl_forward);
  m.def("gaussian_kl_backward", &gaussian_kl_backward);
  m.def("sample_log_weights_forward", &sample_log_weights_forward);
  m.def("sample_log_weights_backward", &sample_log_weights_backward);
  m.def("importance_weighted_elbo_forward", &importance_weighted_elbo_forward);
  m.def("score_function_backward", &score_function_backward);
  m.def("squared_error_forward", &squared_error_forward);
  m.def("gaussian_log_likelihood_forward", &row_value<&Kernels::gaussian_log_likelihood_forward>);
  m.def("gaussian_log_likelihood_backward", &gaussian_log_likelihood_backward);
  m.def("negative_elbo_forward", &negative_elbo_forward);
}
