// The kernels' arguments, and the table of them for one instruction set.
//
// Shapes: rows N, cols D (event elements a row), samples L. Null pointers: not given, not asked
// for.
#pragma once

#include "cpu/operand.h"

namespace vae_fast {

struct Noise {
  uint64_t seed;
  uint64_t row_offset;
  uint32_t sample_offset = 0;
};

struct NoiseArgs {
  Shape shape;
  int64_t samples;
  Noise noise;
  Output eps;  // [L, N, D]
};

struct GaussianInputs {
  Operand mean, logvar;              // [N, D]
  Operand prior_mean, prior_logvar;  // [N, D], or null
  LogVarBounds bounds;
};

struct GaussianGradients {
  Output mean, logvar, prior_mean, prior_logvar;  // [N, D], or a sum of it
};

struct SampleKLArgs {
  Shape shape;
  int64_t samples;
  GaussianInputs inputs;
  Operand eps;  // [L, N, D]; null: made from noise
  Noise noise;
  KLControl control;
  Output z;     // [L, N, D]
  Output kl;    // [N]
  Output dims;  // [D]: the elements' KL summed over the rows; or null
};

// What arrives for the KL.
struct KLUpstream {
  Operand kl;    // [N], or null
  Operand dims;  // [D], or null
  KLControl control;
};

struct SampleKLBackwardArgs {
  Shape shape;
  int64_t samples;
  GaussianInputs inputs;
  Operand eps;  // [L, N, D]; null: made from noise
  Noise noise;
  Operand grad_z;  // [L, N, D], or null
  KLUpstream upstream;
  GaussianGradients gradients;
};

struct GaussianKLArgs {
  Shape shape;
  GaussianInputs inputs;
  KLControl control;
  Output kl;  // [N]
};

struct GaussianKLBackwardArgs {
  Shape shape;
  GaussianInputs inputs;
  KLUpstream upstream;
  GaussianGradients gradients;
};

struct SampleLogWeightsArgs {
  Shape shape;
  int64_t samples;
  GaussianInputs inputs;
  Operand eps;  // [L, N, D]; null: made from noise
  Noise noise;
  Output z;          // [L, N, D]
  Output log_ratio;  // [L, N]
};

struct SampleLogWeightsBackwardArgs {
  Shape shape;
  int64_t samples;
  GaussianInputs inputs;
  Operand eps;  // [L, N, D]; null: made from noise
  Noise noise;
  Operand grad_z;          // [L, N, D], or null
  Operand grad_log_ratio;  // [L, N], or null
  Operand path_weight;     // [L, N], or null: 1
  bool path_only;          // through z alone, the posterior's parameters in its density held
  GaussianGradients gradients;
};

struct ImportanceWeightedELBOArgs {
  int64_t samples;      // K
  int64_t rows;         // N
  Operand log_weights;  // [K, N], contiguous; the others of its dtype: float32 or float64
  Output bound;         // [N]
  Output weights;       // [K, N]
};

struct ScoreFunctionArgs {
  Shape shape;
  int64_t samples;
  GaussianInputs inputs;  // mean for its dtype only, and no prior
  Operand eps;            // [L, N, D]; null: made from noise
  Noise noise;
  Operand upstream, weight;       // [L, N]
  Output grad_mean, grad_logvar;  // [N, D], or a sum of it
};

struct LikelihoodInputs {
  Operand x, mean;  // [N, D]
  Operand logvar;   // [N, D], or null: unit variance
  LogVarBounds bounds;
};

struct LikelihoodGradients {
  Output x, mean, logvar;  // [N, D], or a sum of it
};

struct LogLikelihoodArgs {
  Shape shape;
  LikelihoodInputs inputs;
  Output log_likelihood;  // [N]
};

struct LogLikelihoodBackwardArgs {
  Shape shape;
  LikelihoodInputs inputs;
  Operand grad;  // [N]
  double scale;  // which grad is multiplied by
  LikelihoodGradients gradients;
};

struct NegativeELBOArgs {
  Shape shape;      // rows are L * N
  int64_t samples;  // L
  LikelihoodInputs inputs;
  Operand kl;  // [N]
  double beta;
  LossReduction reduction;
  Output loss;                    // [], or [N]
  Output log_likelihood;          // [N]
  LikelihoodGradients gradients;  // of the loss, by mean and logvar
  Output grad_kl;                 // [N], of the loss; not for LossReduction::none
};

// Each in float, or in double where wide.
struct Kernels {
  const char* name;
  void (*noise)(const NoiseArgs&, int threads, bool wide);
  void (*sample_kl_forward)(const SampleKLArgs&, int threads, bool wide);
  void (*sample_kl_backward)(const SampleKLBackwardArgs&, int threads, bool wide);
  void (*gaussian_kl_forward)(const GaussianKLArgs&, int threads, bool wide);
  void (*gaussian_kl_backward)(const GaussianKLBackwardArgs&, int threads, bool wide);
  void (*sample_log_weights_forward)(const SampleLogWeightsArgs&, int threads, bool wide);
  void (*sample_log_weights_backward)(const SampleLogWeightsBackwardArgs&, int threads, bool wide);
  void (*importance_weighted_elbo_forward)(const ImportanceWeightedELBOArgs&, int threads,
                                           bool wide);
  void (*score_function_backward)(const ScoreFunctionArgs&, int threads, bool wide);
  void (*squared_error_forward)(const LogLikelihoodArgs&, int threads, bool wide);
  void (*gaussian_log_likelihood_forward)(const LogLikelihoodArgs&, int threads, bool wide);
  void (*gaussian_log_likelihood_backward)(const LogLikelihoodBackwardArgs&, int threads,
                                           bool wide);
  void (*negative_elbo_forward)(const NegativeELBOArgs&, int threads, bool wide);
};

// The kernels for this processor: the widest set it has, or the one that VAE_FAST_CPU names.
const Kernels& kernels();

}  // namespace vae_fast
