// The kernels of the estimators, importance weights and the squared error, as test_kernels.cpp
// does.

#include "cases.h"

namespace vae_fast {

// eps given, three samples, a prior full and broadcast over rows, a weight for each path.
void test_sample_log_weights(DType dtype, Shape shape, bool general, bool path_only, int threads) {
  const int64_t n = shape.rows * shape.cols, samples = 3, rows = samples * shape.rows;
  const double tolerance = epsilon(dtype) * (2.0 + 0.3 * std::sqrt(static_cast<double>(n)));
  const Tensor mean(n, dtype, 21), logvar(n, dtype, 22), eps(samples * n, dtype, 23);
  const Tensor prior_mean(shape.cols, dtype, 24), prior_logvar(n, dtype, 25);
  const Tensor grad_z(samples * n, dtype, 26), grad_ratio(rows, sum_dtype(dtype), 27);
  const Tensor weight(rows, sum_dtype(dtype), 28);
  GaussianInputs inputs{mean.operand(), logvar.operand(), {}, {}, {kLow, kHigh}};
  if (general) {
    inputs.prior_mean = prior_mean.strided({shape.rows, shape.cols}, {0, 1});
    inputs.prior_logvar = prior_logvar.operand();
  }
  Tensor z(samples * n, dtype), ratio(rows, sum_dtype(dtype));
  kernels().sample_log_weights_forward(
      {shape, samples, inputs, eps.operand(), {}, z.output(), ratio.output(Reduction::row)},
      threads, wide(dtype));
  Tensor g_mean(n, dtype), g_logvar(n, dtype), g_prior_mean(shape.cols, dtype);
  Tensor g_prior_logvar(n, dtype);
  GaussianGradients gradients{g_mean.output(), g_logvar.output(), {}, {}};
  if (general) {
    gradients.prior_mean = g_prior_mean.output(Reduction::column);
    gradients.prior_logvar = g_prior_logvar.output();
  }
  kernels().sample_log_weights_backward({shape,
                                         samples,
                                         inputs,
                                         eps.operand(),
                                         {},
                                         grad_z.operand(),
                                         grad_ratio.operand(),
                                         path_only ? weight.operand() : Operand(),
                                         path_only,
                                         gradients},
                                        threads, wide(dtype));

  std::vector<double> want_ratio(rows, 0.0), want_prior_mean(shape.cols, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = i / shape.cols, d = i % shape.cols;
    const double v = clamp(logvar[i]), root = std::exp(0.5 * v);
    const double p_m = general ? prior_mean[d] : 0.0, p_v = general ? clamp(prior_logvar[i]) : 0.0;
    double want_mean = 0, want_logvar = 0, want_prior_logvar = 0;
    for (int64_t sample = 0; sample < samples; ++sample) {
      const int64_t j = sample * n + i, k = sample * shape.rows + row;
      const double at = mean[i] + root * eps[j], t = (at - p_m) * std::exp(-p_v);
      CHECK(close(z[j], at, tolerance), "z %ld: %g", static_cast<long>(j), z[j]);
      want_ratio[k] += 0.5 * (eps[j] * eps[j] + v - (at - p_m) * t - p_v);
      double h = grad_z[j] - grad_ratio[k] * t;
      if (path_only) h = weight[k] * (h + grad_ratio[k] * eps[j] / root);
      want_mean += h;
      want_logvar += 0.5 * (root * h * eps[j] + (path_only ? 0.0 : grad_ratio[k]));
      want_prior_mean[d] += grad_ratio[k] * t;
      want_prior_logvar += 0.5 * grad_ratio[k] * ((at - p_m) * t - 1.0);
    }
    CHECK(close(g_mean[i], want_mean, tolerance), "%g, not %g", g_mean[i], want_mean);
    want_logvar = gate(logvar[i], want_logvar);
    CHECK(close(g_logvar[i], want_logvar, tolerance), "%g, not %g", g_logvar[i], want_logvar);
    if (!general) continue;
    want_prior_logvar = gate(prior_logvar[i], want_prior_logvar);
    CHECK(close(g_prior_logvar[i], want_prior_logvar, tolerance), "%g, not %g", g_prior_logvar[i],
          want_prior_logvar);
  }
  for (int64_t k = 0; k < rows; ++k)
    CHECK(close(ratio[k], want_ratio[k], tolerance), "%g, not %g", ratio[k], want_ratio[k]);
  for (int64_t d = 0; general && d < shape.cols; ++d)
    CHECK(close(g_prior_mean[d], want_prior_mean[d], tolerance), "%g, not %g", g_prior_mean[d],
          want_prior_mean[d]);
}

// A log-variance for each column.
void test_score_function(DType dtype, Shape shape, int threads) {
  const int64_t n = shape.rows * shape.cols, samples = 2;
  const double tolerance = epsilon(dtype) * (1.0 + 0.1 * std::sqrt(static_cast<double>(n)));
  const Tensor mean(n, dtype, 31), logvar(shape.cols, dtype, 32), eps(samples * n, dtype, 33);
  const Tensor weight(samples * shape.rows, DType::float32, 34);
  const Tensor upstream(samples * shape.rows, DType::float32, 35);
  const GaussianInputs inputs{
      mean.operand(), logvar.strided({shape.rows, shape.cols}, {0, 1}), {}, {}, {kLow, kHigh}};
  Tensor g_mean(n, dtype), g_logvar(shape.cols, dtype);
  kernels().score_function_backward({shape,
                                     samples,
                                     inputs,
                                     eps.operand(),
                                     {},
                                     upstream.operand(),
                                     weight.operand(),
                                     g_mean.output(),
                                     g_logvar.output(Reduction::column)},
                                    threads, wide(dtype));
  std::vector<double> want_logvar(shape.cols, 0.0);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = i / shape.cols, d = i % shape.cols;
    double want = 0;
    for (int64_t sample = 0; sample < samples; ++sample) {
      const int64_t at = sample * shape.rows + row;
      const double c = upstream[at] * weight[at], e = eps[sample * n + i];
      want += c * e * std::exp(-0.5 * clamp(logvar[d]));
      want_logvar[d] += gate(logvar[d], 0.5 * c * (e * e - 1.0));
    }
    CHECK(close(g_mean[i], want, tolerance), "%g, not %g", g_mean[i], want);
  }
  for (int64_t d = 0; d < shape.cols; ++d)
    CHECK(close(g_logvar[d], want_logvar[d], tolerance), "%g, not %g", g_logvar[d], want_logvar[d]);
}

// Two samples, whose x is the same.
void test_squared_error(DType dtype, Shape shape, int threads) {
  const int64_t n = shape.rows * shape.cols, samples = 2, rows = samples * shape.rows;
  const double tolerance = epsilon(dtype) * (1.0 + 0.1 * std::sqrt(static_cast<double>(n)));
  const Tensor x(n, DType::float32, 41), mean(samples * n, dtype, 42);
  Tensor got(rows, sum_dtype(dtype));
  const LikelihoodInputs inputs{x.strided({samples, n}, {0, 1}), mean.operand(), {}, {}};
  kernels().squared_error_forward({{rows, shape.cols}, inputs, got.output(Reduction::row)}, threads,
                                  wide(dtype));
  for (int64_t k = 0; k < rows; ++k) {
    double want = 0;
    for (int64_t d = 0; d < shape.cols; ++d) {
      const double difference = x[k % shape.rows * shape.cols + d] - mean[k * shape.cols + d];
      want += difference * difference;
    }
    CHECK(close(got[k], want, tolerance), "%g, not %g", got[k], want);
  }
}

// The shape's columns are the samples; the first row's log-weights are all -infinity.
void test_importance_weighted_elbo(DType dtype, Shape shape, int threads) {
  const int64_t rows = shape.rows, samples = shape.cols, n = rows * samples;
  if (samples == 0) return;
  const double tolerance = epsilon(dtype) * (1.0 + std::sqrt(static_cast<double>(samples)));
  Tensor log_weights(n, dtype, 51), bound(rows, dtype), weights(n, dtype);
  for (int64_t k = 0; k < samples && rows > 0; ++k)
    encode(-INFINITY, log_weights.at(k * rows), dtype);
  kernels().importance_weighted_elbo_forward(
      {samples, rows, log_weights.operand(), bound.output(), weights.output()}, threads,
      wide(dtype));
  for (int64_t row = 0; row < rows; ++row) {
    double sum = 0;
    for (int64_t k = 0; k < samples; ++k) sum += std::exp(log_weights[k * rows + row]);
    const double want = std::log(sum / static_cast<double>(samples));
    CHECK(row == 0 ? bound[row] == -INFINITY : close(bound[row], want, tolerance), "%g, not %g",
          bound[row], want);
    for (int64_t k = 0; k < samples; ++k) {
      const double got = weights[k * rows + row];
      const double weight = row == 0 ? 0.0 : std::exp(log_weights[k * rows + row]) / sum;
      CHECK(close(got, weight, tolerance), "%g, not %g", got, weight);
    }
  }
}

}  // namespace vae_fast
