"""The ops: argument checks, the choice of a backend, and the call.

Shapes are written ``[*batch, *event]``: ``event_dims`` rightmost dimensions make a row, and one
value a row comes out of every sum. Likelihoods and KL are in nats. The formulas, the noise and
the gradients are stated in ``docs/contract.md``.
"""

from vae_fast.functional.estimators import (
    importance_weighted_elbo,
    sample_log_weights,
    score_function,
)
from vae_fast.functional.kl import LOGVAR_MAX, LOGVAR_MIN, gaussian_kl, sample_kl
from vae_fast.functional.likelihood import (
    gaussian_log_likelihood,
    negative_elbo,
    negative_elbo_terms,
    squared_error,
)
from vae_fast.functional.noise import noise
from vae_fast.functional.parameters import split_parameters

__all__ = (
    "LOGVAR_MAX",
    "LOGVAR_MIN",
    "gaussian_kl",
    "gaussian_log_likelihood",
    "importance_weighted_elbo",
    "negative_elbo",
    "negative_elbo_terms",
    "noise",
    "sample_kl",
    "sample_log_weights",
    "score_function",
    "split_parameters",
    "squared_error",
)
