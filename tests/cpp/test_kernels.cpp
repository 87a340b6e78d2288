// The kernels of one instruction set (VAE_FAST_CPU), called as the bindings call them, against the
// formulas written out in double. Meant for sanitizers: tensors end where their memory does.

#include <stdexcept>
#include <string>

#include "cases.h"

using namespace vae_fast;

namespace {

constexpr DType kDTypes[] = {DType::float64, DType::float32, DType::float16, DType::bfloat16};
constexpr Shape kShapes[] = {{1, 1},    {3, 5},    {40, 1},   {7, 33}, {2, 1023},
                             {3, 1024}, {2, 2500}, {130, 64}, {0, 4},  {4, 0}};
constexpr uint64_t kSeed = 0x0123456789ABCDEF;

void test_noise(DType dtype, Shape shape, int threads) {
  const int64_t plane = shape.rows * shape.cols;
  Tensor whole(3 * plane, dtype), shifted(3 * plane, dtype);
  kernels().noise({shape, 3, {kSeed, 0}, whole.output()}, threads, wide(dtype));
  // In double precision every block is made by itself, and not in the lanes of a vector.
  Tensor exact(3 * plane, DType::float64);
  kernels().noise({shape, 3, {kSeed, 0}, exact.output()}, threads, true);
  for (int64_t i = 0; i < whole.count; ++i)
    CHECK(close(whole[i], exact[i], epsilon(dtype)), "element %ld is %g, not %g",
          static_cast<long>(i), whole[i], exact[i]);
  if (shape.rows < 2) return;
  // A later row's noise alone, from its offset.
  kernels().noise({{1, shape.cols}, 3, {kSeed, 1}, shifted.output()}, threads, wide(dtype));
  for (int64_t sample = 0; sample < 3; ++sample)
    for (int64_t d = 0; d < shape.cols; ++d)
      CHECK(shifted[sample * shape.cols + d] == whole[sample * plane + shape.cols + d],
            "sample %ld, column %ld", static_cast<long>(sample), static_cast<long>(d));
}

// eps given, prior full or broadcast over rows: every gradient and reduction against its sum.
// Controlled: with free bits, weights, and a sum over the rows.
void test_sample_kl(DType dtype, Shape shape, bool general, bool controlled, int threads) {
  const KLControl control = controlled ? KLControl{0.25, 0.5, 2.0} : KLControl{-INFINITY, 1.0, 1.0};
  const int64_t n = shape.rows * shape.cols, samples = 2;
  const double tolerance = epsilon(dtype) * (1.0 + 0.1 * std::sqrt(static_cast<double>(n)));
  const Tensor mean(n, dtype, 1), logvar(n, dtype, 2), eps(samples * n, dtype, 3);
  const Tensor prior_mean(shape.cols, dtype, 4), prior_logvar(n, dtype, 5);
  const Tensor grad_z(samples * n, dtype, 6), grad_kl(shape.rows, sum_dtype(dtype), 7);
  const Tensor grad_dims(shape.cols, sum_dtype(dtype), 8);
  GaussianInputs inputs{mean.operand(), logvar.operand(), {}, {}, {kLow, kHigh}};
  if (general) {
    inputs.prior_mean = prior_mean.strided({shape.rows, shape.cols}, {0, 1});
    inputs.prior_logvar = prior_logvar.operand();
  }
  Tensor z(samples * n, dtype), kl(shape.rows, sum_dtype(dtype));
  Tensor dims(shape.cols, sum_dtype(dtype));
  kernels().sample_kl_forward({shape,
                               samples,
                               inputs,
                               eps.operand(),
                               {},
                               control,
                               z.output(),
                               kl.output(Reduction::row),
                               controlled ? dims.output(Reduction::column) : Output()},
                              threads, wide(dtype));
  Tensor g_mean(n, dtype), g_logvar(shape.rows, dtype), g_prior_mean(shape.cols, dtype);
  Tensor g_prior_logvar(1, dtype);
  GaussianGradients gradients{g_mean.output(), g_logvar.output(Reduction::row), {}, {}};
  if (general) {
    gradients.prior_mean = g_prior_mean.output(Reduction::column);
    gradients.prior_logvar = g_prior_logvar.output(Reduction::total);
  }
  kernels().sample_kl_backward(
      {shape,
       samples,
       inputs,
       eps.operand(),
       {},
       grad_z.operand(),
       {grad_kl.operand(), controlled ? grad_dims.operand() : Operand(), control},
       gradients},
      threads, wide(dtype));

  std::vector<double> want_prior_mean(shape.cols, 0.0), want_dims(shape.cols, 0.0);
  double want_prior_logvar = 0;
  for (int64_t row = 0; row < shape.rows; ++row) {
    double want_kl = 0, want_logvar = 0;
    for (int64_t d = 0; d < shape.cols; ++d) {
      const int64_t i = row * shape.cols + d;
      const double v = clamp(logvar[i]), p_m = general ? prior_mean[d] : 0.0;
      const double p_v = general ? clamp(prior_logvar[i]) : 0.0, difference = mean[i] - p_m;
      const double square = difference * difference * std::exp(-p_v), ratio = std::expm1(v - p_v);
      const double element = 0.5 * (square + ratio - (v - p_v));
      const bool below = element < control.floor;
      want_kl += below ? control.floor : element;
      want_dims[d] += below ? control.floor : element;
      const double arrives = below ? 0.0 : grad_kl[row] + (controlled ? grad_dims[d] : 0.0);
      const double g = control.posterior_weight * arrives, g_prior = control.prior_weight * arrives;
      double through_mean = 0, through_logvar = 0;
      for (int64_t sample = 0; sample < samples; ++sample) {
        const int64_t j = sample * n + i;
        CHECK(close(z[j], mean[i] + std::exp(0.5 * v) * eps[j], tolerance), "z %ld: %g",
              static_cast<long>(j), z[j]);
        through_mean += grad_z[j];
        through_logvar += 0.5 * grad_z[j] * std::exp(0.5 * v) * eps[j];
      }
      const double want_mean = through_mean + g * difference * std::exp(-p_v);
      CHECK(close(g_mean[i], want_mean, tolerance), "%ld: %g, not %g", static_cast<long>(i),
            g_mean[i], want_mean);
      want_logvar += gate(logvar[i], through_logvar + g * 0.5 * ratio);
      if (!general) continue;
      want_prior_mean[d] -= g_prior * difference * std::exp(-p_v);
      want_prior_logvar += gate(prior_logvar[i], -0.5 * g_prior * (square + ratio));
    }
    CHECK(close(kl[row], want_kl, tolerance), "%g, not %g", kl[row], want_kl);
    CHECK(close(g_logvar[row], want_logvar, tolerance), "%g, not %g", g_logvar[row], want_logvar);
  }
  for (int64_t d = 0; controlled && d < shape.cols; ++d)
    CHECK(close(dims[d], want_dims[d], tolerance), "%g, not %g", dims[d], want_dims[d]);
  if (!general) return;
  for (int64_t d = 0; d < shape.cols; ++d)
    CHECK(close(g_prior_mean[d], want_prior_mean[d], tolerance), "%g, not %g", g_prior_mean[d],
          want_prior_mean[d]);
  CHECK(close(g_prior_logvar[0], want_prior_logvar, tolerance), "%g, not %g", g_prior_logvar[0],
        want_prior_logvar);
}

// Gradients as the halves of one tensor have the bits of contiguous ones.
void test_halves(DType dtype, Shape shape, int threads) {
  const int64_t n = shape.rows * shape.cols;
  const Tensor mean(n, dtype, 21), logvar(n, dtype, 22), grad_kl(shape.rows, sum_dtype(dtype), 23);
  const GaussianInputs inputs{mean.operand(), logvar.operand(), {}, {}, {kLow, kHigh}};
  const KLUpstream upstream{grad_kl.operand(), {}, {-INFINITY, 1.0, 1.0}};
  Tensor g_mean(n, dtype), g_logvar(n, dtype), whole(2 * n, dtype);
  Output left = whole.output(), right = left;
  right.data = static_cast<char*>(left.data) + shape.cols * size_of(dtype);
  left.row_gap = right.row_gap = shape.cols;
  const auto run = [&](const Output& to_mean, const Output& to_logvar) {
    kernels().gaussian_kl_backward({shape, inputs, upstream, {to_mean, to_logvar, {}, {}}}, threads,
                                   wide(dtype));
  };
  run(g_mean.output(), g_logvar.output());
  run(left, right);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = i + i / shape.cols * shape.cols;
    CHECK(whole[at] == g_mean[i], "%g, not %g", whole[at], g_mean[i]);
    CHECK(whole[at + shape.cols] == g_logvar[i], "%g, not %g", whole[at + shape.cols], g_logvar[i]);
  }
}

// x with columns in reverse order of memory strides, logvar absent, shared by column, or full.
void test_negative_elbo(DType dtype, Shape shape, int logvar_kind, int threads) {
  const int64_t n = shape.rows * shape.cols;
  const double tolerance = epsilon(dtype) * (1.0 + 0.1 * std::sqrt(static_cast<double>(n)));
  const Tensor x(n, DType::float32, 11), mean(n, dtype, 12), kl(shape.rows, DType::float32, 13);
  const Tensor logvar(logvar_kind == 1 ? shape.cols : n, dtype, 14);
  LikelihoodInputs inputs{
      x.strided({shape.rows, shape.cols}, {1, shape.rows}), mean.operand(), {}, {kLow, kHigh}};
  if (logvar_kind == 1) inputs.logvar = logvar.strided({shape.rows, shape.cols}, {0, 1});
  if (logvar_kind == 2) inputs.logvar = logvar.operand();
  Tensor loss(1, sum_dtype(dtype)), ll(shape.rows, sum_dtype(dtype)), g_mean(n, dtype);
  Tensor g_logvar(logvar.count, dtype), g_kl(shape.rows, DType::float32);
  LikelihoodGradients gradients{{}, g_mean.output(), {}};
  if (logvar_kind != 0)
    gradients.logvar = g_logvar.output(logvar_kind == 1 ? Reduction::column : Reduction::full);
  kernels().negative_elbo_forward(
      {shape, 1, inputs, kl.operand(), 0.5, LossReduction::sum, loss.output(),
       ll.output(Reduction::row), gradients, g_kl.output()},
      threads, wide(dtype));
  double want_loss = 0;
  std::vector<double> want_logvar(logvar.count, 0.0);
  for (int64_t row = 0; row < shape.rows; ++row) {
    double want_ll = 0;
    for (int64_t d = 0; d < shape.cols; ++d) {
      const int64_t i = row * shape.cols + d, k = logvar_kind == 1 ? d : i;
      const double raw = logvar_kind == 0 ? 0.0 : logvar[k];
      const double v = clamp(raw), difference = x[d * shape.rows + row] - mean[i];
      const double square = difference * difference * std::exp(-v);
      want_ll -= 0.5 * (std::log(2 * M_PI) + v + square);
      const double want = -difference * std::exp(-v);
      CHECK(close(g_mean[i], want, tolerance), "%g, not %g", g_mean[i], want);
      if (logvar_kind != 0) want_logvar[k] += gate(raw, -0.5 * (square - 1.0));
    }
    CHECK(close(ll[row], want_ll, tolerance), "%g, not %g", ll[row], want_ll);
    CHECK(g_kl[row] == 0.5, "%g, not 0.5", g_kl[row]);
    want_loss += 0.5 * kl[row] - want_ll;
  }
  CHECK(close(loss[0], want_loss, tolerance), "%g, not %g", loss[0], want_loss);
  if (logvar_kind != 0)
    for (int64_t k = 0; k < logvar.count; ++k)
      CHECK(close(g_logvar[k], want_logvar[k], tolerance), "%g, not %g", g_logvar[k],
            want_logvar[k]);
}

}  // namespace

int main() {
  try {
    std::printf("kernels: %s\n", kernels().name);
  } catch (const std::runtime_error& error) {
    std::printf("skipped: %s\n", error.what());
    return 77;
  }
  for (const DType dtype : kDTypes) {
    for (const Shape shape : kShapes) {
      for (const int threads : {1, 3}) {
        test_noise(dtype, shape, threads);
        for (const bool general : {false, true}) {
          test_sample_kl(dtype, shape, general, false, threads);
          test_sample_kl(dtype, shape, general, true, threads);
          for (const bool path_only : {false, true})
            test_sample_log_weights(dtype, shape, general, path_only, threads);
        }
        test_halves(dtype, shape, threads);
        test_score_function(dtype, shape, threads);
        test_squared_error(dtype, shape, threads);
        if (sum_dtype(dtype) == dtype) test_importance_weighted_elbo(dtype, shape, threads);
        for (const int kind : {0, 1, 2}) test_negative_elbo(dtype, shape, kind, threads);
      }
    }
  }
  std::printf("%d failures\n", failures());
  return failures() == 0 ? 0 : 1;
}
