// The CUDA kernels' arguments, and the functions that launch them. No CUDA header is needed here.
//
// Shapes: samples L, rows N, cols D (event elements a row). Null pointers: not given, not asked
// for.
#pragma once

#include <cstddef>

#include "common/types.h"

namespace vae_fast::device {

// An input: element (sample, row, col) lies at the sum of each index times its stride. A stride is
// 0 where the input is broadcast, and cols are adjacent or broadcast.
struct View {
  const void* data = nullptr;
  DType dtype = DType::float32;
  int64_t sample_stride = 0, row_stride = 0, col_stride = 0;  // in elements
};

struct Problem {
  int64_t samples, rows, cols;
};

// The seed is a number, or lies on the device, where a captured graph finds a new one each time.
struct Noise {
  uint64_t seed = 0;
  const int64_t* seed_at = nullptr;
  uint64_t row_offset = 0;
  uint32_t sample_offset = 0;
};

// Likewise a number, or an element on the device.
struct Scalar {
  double value = 1.0;
  const void* at = nullptr;
  DType dtype = DType::float32;
};

// Where a launch happens, and who gives it working memory. Memory comes from the caller's caching
// allocator, which is in the stream's order: it may be free for others once the call has returned.
struct Context {
  int device = 0;
  void* stream = nullptr;
  void* owner = nullptr;
  void* (*allocate)(void* owner, size_t bytes) = nullptr;

  template <class T>
  T* scratch(int64_t count) const {
    return static_cast<T*>(allocate(owner, static_cast<size_t>(count) * sizeof(T)));
  }
};

struct NoiseArgs {
  Problem shape;
  Noise noise;
  Output eps;  // [L, N, D]
};

struct GaussianInputs {
  View mean, logvar;              // [N, D]
  View prior_mean, prior_logvar;  // [N, D], or null
  LogVarBounds bounds;
};

struct GaussianGradients {
  Output mean;                              // [N, D]
  Output logvar, prior_mean, prior_logvar;  // [N, D], or a sum of it
};

struct SampleKLArgs {
  Problem shape;
  GaussianInputs inputs;
  View eps;  // [L, N, D]; null: made from noise
  Noise noise;
  KLControl control;
  Output z;     // [L, N, D]
  Output kl;    // [N]
  Output dims;  // [D]: kl of the elements, summed over the rows; or null
};

struct SampleKLBackwardArgs {
  Problem shape;
  GaussianInputs inputs;
  View eps;  // [L, N, D]; null: made from noise
  Noise noise;
  KLControl control;
  View grad_z;     // [L, N, D], or null
  View grad_kl;    // [N], or null
  View grad_dims;  // [D], or null
  GaussianGradients gradients;
};

struct LogWeightsArgs {
  Problem shape;
  GaussianInputs inputs;
  View eps;  // [L, N, D]; null: made from noise
  Noise noise;
  Output z;          // [L, N, D]
  Output log_ratio;  // [L, N]
};

struct LogWeightsBackwardArgs {
  Problem shape;
  GaussianInputs inputs;
  View eps;  // [L, N, D]; null: made from noise
  Noise noise;
  View grad_z;          // [L, N, D], or null
  View grad_log_ratio;  // [L, N], or null
  View path_weight;     // [L, N], or null: 1
  bool path_only;       // through z alone: the posterior's density does not count
  GaussianGradients gradients;
};

struct ImportanceArgs {
  Problem shape;     // K samples of N rows of one element
  View log_weights;  // [K, N]
  Output bound;      // [N]
  Output weights;    // [K, N]
};

struct ScoreFunctionArgs {
  Problem shape;
  DType dtype;            // of the mean, which is not looked at
  View upstream, weight;  // [L, N]
  View logvar;            // [N, D]
  LogVarBounds bounds;
  View eps;  // [L, N, D]; null: made from noise
  Noise noise;
  Output grad_mean;    // [N, D], or null
  Output grad_logvar;  // [N, D], or a sum of it; or null
};

struct LikelihoodInputs {
  View x, mean;  // [L, N, D]
  View logvar;   // [L, N, D], or null: unit variance
  LogVarBounds bounds;
};

struct LikelihoodGradients {
  Output x, mean;  // [L, N, D]
  Output logvar;   // [L, N, D], or a sum of it
};

struct LogLikelihoodArgs {
  Problem shape;
  LikelihoodInputs inputs;
  Output row_value;  // [L, N]: the log-density of a row, or its squared error
};

struct LogLikelihoodBackwardArgs {
  Problem shape;
  LikelihoodInputs inputs;
  View grad;  // [L, N], times scale
  double scale;
  LikelihoodGradients gradients;
};

struct NegativeELBOArgs {
  Problem shape;
  LikelihoodInputs inputs;
  View kl;  // [N]
  Scalar beta;
  LossReduction reduction;
  Output loss;                    // [], or [N]
  Output log_likelihood;          // [N]
  LikelihoodGradients gradients;  // of the loss, by mean and logvar
  Output grad_kl;                 // [N], of the loss; not for LossReduction::none
};

struct ScaleArgs {
  static constexpr int kMost = 3;
  int count;
  Output gradients[kMost];
  int64_t elements[kMost];
  Scalar factor;
};

// The newest CUDA that the driver runs, as 1000 * major + 10 * minor; 0 without a driver.
int driver_version();

// Each in float, or in double where inputs are; throws std::runtime_error where a launch fails.
void noise(const NoiseArgs&, const Context&);
void sample_kl_forward(const SampleKLArgs&, const Context&);
void sample_kl_backward(const SampleKLBackwardArgs&, const Context&);
// Those of sample_kl without z and dims: eps, noise and their gradients are not looked at.
void gaussian_kl_forward(const SampleKLArgs&, const Context&);
void gaussian_kl_backward(const SampleKLBackwardArgs&, const Context&);
void sample_log_weights_forward(const LogWeightsArgs&, const Context&);
void sample_log_weights_backward(const LogWeightsBackwardArgs&, const Context&);
void importance_weighted_elbo_forward(const ImportanceArgs&, const Context&);
void score_function_backward(const ScoreFunctionArgs&, const Context&);
void gaussian_log_likelihood_forward(const LogLikelihoodArgs&, const Context&);
// By the likelihood's kernel; there is no logvar.
void squared_error_forward(const LogLikelihoodArgs&, const Context&);
void gaussian_log_likelihood_backward(const LogLikelihoodBackwardArgs&, const Context&);
void negative_elbo_forward(const NegativeELBOArgs&, const Context&);
void scale(const ScaleArgs&, const Context&);

}  // namespace vae_fast::device
