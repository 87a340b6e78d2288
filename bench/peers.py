"""What a person writes in PyTorch for the same work, clamp of the log-variance included."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0
LOG_2PI = math.log(2 * math.pi)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL from N(0, I) of each row; mean and logvar are [N, D]."""
    logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)
    return -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp(), dim=1)


def sample_kl(mean: Tensor, logvar: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A sample [N, D] and the KL of each row [N]."""
    logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)
    std = torch.exp(0.5 * logvar)
    z = mean + std * (torch.randn_like(std) if eps is None else eps)
    kl = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp(), dim=1)
    return z, kl


def gaussian_log_likelihood(
    x: Tensor, mean: Tensor, logvar: Tensor, logvar_min: float = LOGVAR_MIN
) -> Tensor:
    """Log-density of each row of x; all are [N, D]."""
    logvar = logvar.clamp(logvar_min, LOGVAR_MAX)
    return -0.5 * torch.sum(LOG_2PI + logvar + (x - mean).pow(2) * torch.exp(-logvar), dim=1)


def negative_elbo(
    x: Tensor, mean: Tensor, logvar: Tensor, kl: Tensor, logvar_min: float = LOGVAR_MIN
) -> Tensor:
    """Mean over rows of KL minus log-likelihood; kl is [N]."""
    return (kl - gaussian_log_likelihood(x, mean, logvar, logvar_min)).mean()


def elbo(
    posterior_mean: Tensor, posterior_logvar: Tensor, x: Tensor, mean: Tensor, logvar: Tensor
) -> tuple[Tensor, Tensor]:
    """The sample and the loss of a VAE, given what its encoder and its decoder return."""
    z, kl = sample_kl(posterior_mean, posterior_logvar)
    return z, negative_elbo(x, mean, logvar, kl)


def noise(like: Tensor) -> Tensor:
    return torch.randn_like(like)
