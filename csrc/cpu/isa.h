// The kernels as this instruction set's files define them.
#pragma once

#include "common/config.h"
#include "cpu/kernels.h"

namespace vae_fast::VF_ISA {

void noise(const NoiseArgs&, int threads, bool wide);
void sample_kl_forward(const SampleKLArgs&, int threads, bool wide);
void sample_kl_backward(const SampleKLBackwardArgs&, int threads, bool wide);
void gaussian_kl_forward(const GaussianKLArgs&, int threads, bool wide);
void gaussian_kl_backward(const GaussianKLBackwardArgs&, int threads, bool wide);
void sample_log_weights_forward(const SampleLogWeightsArgs&, int threads, bool wide);
void sample_log_weights_backward(const SampleLogWeightsBackwardArgs&, int threads, bool wide);
void importance_weighted_elbo_forward(const ImportanceWeightedELBOArgs&, int threads, bool wide);
void score_function_backward(const ScoreFunctionArgs&, int threads, bool wide);
void squared_error_forward(const LogLikelihoodArgs&, int threads, bool wide);
void gaussian_log_likelihood_forward(const LogLikelihoodArgs&, int threads, bool wide);
void gaussian_log_likelihood_backward(const LogLikelihoodBackwardArgs&, int threads, bool wide);
void negative_elbo_forward(const NegativeELBOArgs&, int threads, bool wide);

extern const Kernels table;

}  // namespace vae_fast::VF_ISA
