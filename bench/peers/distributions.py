"""``torch.distributions``: rsample, kl_divergence and log_prob of Normal.

Without the validation of arguments, which is on by default and reads every tensor once more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from bench.device import Setting
from bench.peers import Function
from bench.peers.eager import LOGVAR_MAX, LOGVAR_MIN, alone


def _gaussian(mean: Tensor, logvar: Tensor) -> Independent[Normal]:
    """Of rows; every dimension but the first is the event's."""
    std = torch.exp(0.5 * logvar.clamp(LOGVAR_MIN, LOGVAR_MAX))
    return Independent(Normal(mean, std, validate_args=False), mean.dim() - 1, validate_args=False)


def _kl(posterior: Independent[Normal]) -> Tensor:
    zero, one = posterior.mean.new_zeros(()), posterior.mean.new_ones(())
    base = posterior.base_dist
    prior = Normal(zero.expand(base.batch_shape), one.expand(base.batch_shape), validate_args=False)
    events = posterior.reinterpreted_batch_ndims
    return kl_divergence(posterior, Independent(prior, events, validate_args=False))


def sample_kl(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    posterior = _gaussian(mean, logvar)
    return posterior.rsample(), _kl(posterior)


def packed_sample_kl(parameters: Tensor) -> tuple[Tensor, Tensor]:
    mean, logvar = parameters.chunk(2, dim=1)
    return sample_kl(mean, logvar)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    return _kl(_gaussian(mean, logvar))


def gaussian_log_likelihood(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    return _gaussian(mean, logvar).log_prob(x)


def negative_elbo(x: Tensor, mean: Tensor, logvar: Tensor, kl: Tensor) -> Tensor:
    return (kl - gaussian_log_likelihood(x, mean, logvar)).mean()


def elbo(
    posterior_mean: Tensor, posterior_logvar: Tensor, x: Tensor, mean: Tensor, logvar: Tensor
) -> tuple[Tensor, Tensor]:
    z, kl = sample_kl(posterior_mean, posterior_logvar)
    return z, negative_elbo(x, mean, logvar, kl)


def unit_negative_elbo(
    posterior_mean: Tensor, posterior_logvar: Tensor, x: Tensor, mean: Tensor
) -> Tensor:
    kl = gaussian_kl(posterior_mean, posterior_logvar)
    likelihood = Normal(mean, torch.ones_like(mean), validate_args=False)
    return (kl - Independent(likelihood, 1, validate_args=False).log_prob(x)).mean()


def _standard(like: Tensor) -> Independent[Normal]:
    zero, one = like.new_zeros(()).expand_as(like), like.new_ones(()).expand_as(like)
    return Independent(Normal(zero, one, validate_args=False), 1, validate_args=False)


def iwae(mean: Tensor, logvar: Tensor, log_likelihood: Tensor) -> tuple[Tensor, Tensor]:
    posterior = _gaussian(mean, logvar)
    z = posterior.rsample(log_likelihood.shape[:1])
    log_weights = log_likelihood + _standard(mean).log_prob(z) - posterior.log_prob(z)
    return z, torch.logsumexp(log_weights, 0) - math.log(len(log_likelihood))


def score_function(signal: Tensor, z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    log_density = _gaussian(mean, logvar).log_prob(z)
    return signal + signal * (log_density - log_density.detach())


def functions(setting: Setting) -> Mapping[str, Function]:
    return {
        "sample_kl": sample_kl,
        "packed_sample_kl": packed_sample_kl,
        "gaussian_kl": alone(gaussian_kl),
        "gaussian_log_likelihood": alone(gaussian_log_likelihood),
        "negative_elbo": alone(negative_elbo),
        "elbo": elbo,
        "unit_negative_elbo": alone(unit_negative_elbo),
        "iwae": iwae,
        "score_function": alone(score_function),
    }
