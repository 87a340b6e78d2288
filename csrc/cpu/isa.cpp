#include "cpu/isa.h"

#define VF_STRING(name) #name
#define VF_NAME(name) VF_STRING(name)

namespace vae_fast::VF_ISA {

extern const Kernels table = {
    VF_NAME(VF_ISA),
    noise,
    sample_kl_forward,
    sample_kl_backward,
    gaussian_kl_forward,
    gaussian_kl_backward,
    sample_log_weights_forward,
    sample_log_weights_backward,
    importance_weighted_elbo_forward,
    score_function_backward,
    squared_error_forward,
    gaussian_log_likelihood_forward,
    gaussian_log_likelihood_backward,
    negative_elbo_forward,
};

}  // namespace vae_fast::VF_ISA
