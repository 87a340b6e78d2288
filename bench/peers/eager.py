"""What a person writes in PyTorch for the same work, clamp of the log-variance included."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bench.device import Setting
from bench.peers import Function
from vae_fast import FusedVAE

LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0
LOG_2PI = math.log(2 * math.pi)
Dims = tuple[int, ...]  # of the event, counted from the right


def _kl(mean: Tensor, logvar: Tensor, dims: Dims) -> Tensor:
    return -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp(), dim=dims)


def gaussian_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL from N(0, I) of each row; mean and logvar are [N, D]."""
    return _kl(mean, logvar.clamp(LOGVAR_MIN, LOGVAR_MAX), (-1,))


def sample_kl(
    mean: Tensor, logvar: Tensor, eps: Tensor | None = None, dims: Dims = (-1,)
) -> tuple[Tensor, Tensor]:
    """A sample, [N, D] or of the shape of eps, and the KL of each row [N]."""
    logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)
    std = torch.exp(0.5 * logvar)
    z = mean + std * (torch.randn_like(std) if eps is None else eps)
    return z, _kl(mean, logvar, dims)


def packed_sample_kl(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """``sample_kl`` of [N, 2·C, H, W], the means before the log-variances."""
    mean, logvar = parameters.chunk(2, dim=1)
    return sample_kl(mean, logvar, dims=(-3, -2, -1))


def gaussian_log_likelihood(
    x: Tensor, mean: Tensor, logvar: Tensor, logvar_min: float = LOGVAR_MIN, dims: Dims = (-1,)
) -> Tensor:
    """Log-density of each row of x; all are [N, D]."""
    logvar = logvar.clamp(logvar_min, LOGVAR_MAX)
    return -0.5 * torch.sum(LOG_2PI + logvar + (x - mean).pow(2) * torch.exp(-logvar), dim=dims)


def unit_log_likelihood(x: Tensor, mean: Tensor, dims: Dims = (-1,)) -> Tensor:
    """The same for a variance of 1."""
    elements = math.prod(x.shape[dim] for dim in dims)
    return -0.5 * ((x - mean).pow(2).sum(dim=dims) + elements * LOG_2PI)


def negative_elbo(x: Tensor, mean: Tensor, logvar: Tensor, kl: Tensor) -> Tensor:
    """Mean over rows of KL minus log-likelihood; kl is [N]."""
    return (kl - gaussian_log_likelihood(x, mean, logvar)).mean()


def elbo(
    posterior_mean: Tensor, posterior_logvar: Tensor, x: Tensor, mean: Tensor, logvar: Tensor
) -> tuple[Tensor, Tensor]:
    """The sample and the loss of a VAE, given what its encoder and its decoder return."""
    z, kl = sample_kl(posterior_mean, posterior_logvar)
    return z, negative_elbo(x, mean, logvar, kl)


def unit_negative_elbo(
    posterior_mean: Tensor, posterior_logvar: Tensor, x: Tensor, mean: Tensor
) -> Tensor:
    """The loss of a VAE whose decoder has the variance 1."""
    kl = gaussian_kl(posterior_mean, posterior_logvar)
    return (kl - unit_log_likelihood(x, mean)).mean()


def free_bits_sample_kl(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """``sample_kl`` with at least 0 nats for each element."""
    logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)
    std = torch.exp(0.5 * logvar)
    z = mean + std * torch.randn_like(std)
    kl = -0.5 * (1 + logvar - mean.pow(2) - logvar.exp())
    return z, kl.clamp(min=0.0).sum(-1)


def iwae(mean: Tensor, logvar: Tensor, log_likelihood: Tensor) -> tuple[Tensor, Tensor]:
    """Samples [K, N, D] and the importance-weighted bound [N]; log_likelihood is [K, N]."""
    logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)
    eps = torch.randn((len(log_likelihood), *mean.shape), dtype=mean.dtype, device=mean.device)
    z = mean + torch.exp(0.5 * logvar) * eps
    log_ratio = 0.5 * (eps.pow(2) + logvar - z.pow(2)).sum(-1)
    bound = torch.logsumexp(log_likelihood + log_ratio, 0) - math.log(len(log_likelihood))
    return z, bound


def score_function(signal: Tensor, z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """The signal [K, N], and with it the gradient of its expectation over z ~ q."""
    logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)
    distance = (z - mean) * torch.exp(-0.5 * logvar)
    log_density = -0.5 * (LOG_2PI + logvar + distance.pow(2)).sum(-1)
    return signal + signal * (log_density - log_density.detach())


def noise(like: Tensor) -> Tensor:
    return torch.randn_like(like)


def alone(function: Callable[..., Tensor]) -> Function:
    """The same with a tuple of one output."""
    return lambda *arguments: (function(*arguments),)


FUNCTIONS: Mapping[str, Function] = {
    "sample_kl": sample_kl,
    "packed_sample_kl": packed_sample_kl,
    "gaussian_kl": alone(gaussian_kl),
    "gaussian_log_likelihood": alone(gaussian_log_likelihood),
    "negative_elbo": alone(negative_elbo),
    "elbo": elbo,
    "unit_negative_elbo": alone(unit_negative_elbo),
    "free_bits_sample_kl": free_bits_sample_kl,
    "iwae": iwae,
    "score_function": alone(score_function),
    "noise": alone(noise),
}


def functions(setting: Setting) -> Mapping[str, Function]:
    return FUNCTIONS


def pair(output: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of a network that gives the two, or both along dimension 1."""
    if isinstance(output, Tensor):
        mean, logvar = output.chunk(2, dim=1)
        return mean, logvar
    return output


class EagerVAE(nn.Module):
    """The networks of a ``FusedVAE``, and the rest in plain PyTorch."""

    def __init__(self, fused: FusedVAE) -> None:
        super().__init__()
        self.encoder, self.decoder = copy.deepcopy(fused.encoder), copy.deepcopy(fused.decoder)
        self.logvar_min = fused.decoder_logvar_min
        self.learned = fused.decoder_variance == "learned"
        self.samples = fused.num_samples
        self.dims = tuple(range(-len(fused.input_shape), 0))

    def draw(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """Noise of z's shape, [N, latent] or [L, N, latent]."""
        return torch.randn_like(mean if self.samples == 1 else mean.expand(self.samples, -1, -1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        posterior_mean, posterior_logvar = pair(self.encoder(x))
        eps = self.draw(posterior_mean, posterior_logvar)
        z, kl = sample_kl(posterior_mean, posterior_logvar, eps)
        output = self.decoder(z if self.samples == 1 else z.flatten(0, 1))
        if self.learned:
            mean, logvar = (self._samples_apart(t) for t in pair(output))
            ll = gaussian_log_likelihood(x, mean, logvar, self.logvar_min, self.dims)
        else:
            ll = unit_log_likelihood(x, self._samples_apart(output), self.dims)
        return (kl - ll).mean(), z

    def _samples_apart(self, output: Tensor) -> Tensor:
        return output if self.samples == 1 else output.unflatten(0, (self.samples, -1))


def step(fused: FusedVAE) -> nn.Module:
    return EagerVAE(fused)
