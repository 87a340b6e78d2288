// What the tests of the kernels share: bounds, tolerances, and the tests that main calls.
#pragma once

#include "check.h"
#include "tensor.h"

namespace vae_fast {

constexpr double kLow = -1.0, kHigh = 1.5;  // so that some log-variances are clamped

inline double epsilon(DType dtype) {
  return dtype == DType::float64   ? 1e-13
         : dtype == DType::float32 ? 4e-6
         : dtype == DType::float16 ? 1e-3
                                   : 8e-3;
}

inline double clamp(double v) { return v < kLow ? kLow : v > kHigh ? kHigh : v; }
inline double gate(double v, double g) { return v >= kLow && v <= kHigh ? g : 0.0; }
inline DType sum_dtype(DType dtype) { return dtype == DType::float64 ? dtype : DType::float32; }
inline bool wide(DType dtype) { return dtype == DType::float64; }

void test_sample_log_weights(DType dtype, Shape shape, bool general, bool path_only, int threads);
void test_score_function(DType dtype, Shape shape, int threads);
void test_squared_error(DType dtype, Shape shape, int threads);
void test_importance_weighted_elbo(DType dtype, Shape shape, int threads);

}  // namespace vae_fast
