"""Every op in plain PyTorch, on any device: the readable statement of each formula.

``values`` and ``estimators`` have what the ops compute, ``gradients`` their derivatives. An
``<op>_forward`` of one output is also the op as autograd, the compiler and ``torch.func`` see
through it.
"""

from vae_fast._backends.reference.common import compute_dtype, noise
from vae_fast._backends.reference.estimators import (
    gradient_shares,
    importance_weighted_elbo_forward,
    sample_log_weights,
    sample_log_weights_forward,
    score_function,
)
from vae_fast._backends.reference.gradients import (
    gaussian_kl_backward,
    gaussian_log_likelihood_backward,
    grad_kl,
    importance_weighted_elbo_backward,
    negative_elbo_backward,
    sample_kl_backward,
    sample_log_weights_backward,
    score_function_backward,
    squared_error_backward,
    times,
)
from vae_fast._backends.reference.values import (
    gaussian_kl_forward,
    gaussian_log_likelihood_forward,
    negative_elbo,
    negative_elbo_forward,
    sample_kl_forward,
    squared_error_forward,
)

__all__ = (
    "compute_dtype",
    "gaussian_kl_backward",
    "gaussian_kl_forward",
    "gaussian_log_likelihood_backward",
    "gaussian_log_likelihood_forward",
    "grad_kl",
    "gradient_shares",
    "importance_weighted_elbo_backward",
    "importance_weighted_elbo_forward",
    "negative_elbo",
    "negative_elbo_backward",
    "negative_elbo_forward",
    "noise",
    "sample_kl_backward",
    "sample_kl_forward",
    "sample_log_weights",
    "sample_log_weights_backward",
    "sample_log_weights_forward",
    "score_function",
    "score_function_backward",
    "squared_error_backward",
    "squared_error_forward",
    "times",
    "unavailable",
)


def unavailable() -> None:
    return None
