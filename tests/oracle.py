"""The float64 answers that every backend is held to.

Values come from ``torch.distributions`` and their gradients from autograd over them. Noise comes
from a NumPy implementation of the published generator. Nothing here imports the package.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

WORD = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox4x32_10(counter: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Philox4x32-10 (Salmon et al., SC 2011) on arrays of 32-bit words held in uint64."""
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint64)
    step = np.array([0x9E3779B9, 0xBB67AE85], dtype=np.uint64)
    even, odd = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    words = [word.astype(np.uint64) for word in counter]
    for round_index in range(10):
        k = (key + np.uint64(round_index) * step) & WORD
        left, right = even * words[0], odd * words[2]
        words = [
            (right >> HALF) ^ words[1] ^ k[0],
            right & WORD,
            (left >> HALF) ^ words[3] ^ k[1],
            left & WORD,
        ]
    return words


def noise_at(seed: int, sample: int, element: np.ndarray) -> np.ndarray:
    """Standard-normal noise in float64 of the given uint64 element indices."""
    block = element >> np.uint64(2)
    zero = np.zeros_like(block)
    words = philox4x32_10([block & WORD, block >> HALF, zero + np.uint64(sample), zero], seed)
    second_pair = (element & np.uint64(2)) != 0
    uniforms = []
    for low, high in ((words[0], words[2]), (words[1], words[3])):
        word = np.where(second_pair, high, low).astype(np.float32)
        uniforms.append((word * np.float32(2.0**-32) + np.float32(2.0**-33)).astype(np.float64))
    radius, angle = np.sqrt(-2.0 * np.log(uniforms[0])), 2.0 * np.pi * uniforms[1]
    return radius * np.where((element & np.uint64(1)) == 0, np.cos(angle), np.sin(angle))


@functools.lru_cache(maxsize=64)
def noise(
    shape: tuple[int, ...],
    seed: int,
    event_dims: int,
    row_offset: int = 0,
    num_samples: int | None = None,
) -> Tensor:
    """float64 noise of ``shape``, behind ``num_samples`` where given. Kept: do not write to it."""
    row_size = int(np.prod(shape[len(shape) - event_dims :], dtype=np.uint64))
    count = int(np.prod(shape, dtype=np.uint64))
    first = np.uint64(row_offset * row_size % 2**64)
    element = first + np.arange(count, dtype=np.uint64)
    planes = [noise_at(seed, sample, element) for sample in range(num_samples or 1)]
    flat = torch.from_numpy(np.stack(planes))
    return flat.view(shape if num_samples is None else (num_samples, *shape))


def clamp(logvar: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The clamp of log-variances: torch's has gradient 1 at and inside the bounds, 0 outside."""
    return logvar.clamp(*bounds)


def gaussian(mean: Tensor, logvar: Tensor | None, event_dims: int) -> Independent:
    deviation = torch.ones_like(mean) if logvar is None else (0.5 * logvar).exp()
    normal = Normal(mean, deviation.expand(mean.shape), validate_args=False)
    return Independent(normal, event_dims, validate_args=False)


def sum_event(terms: Tensor, event_dims: int) -> Tensor:
    return terms.sum(tuple(range(-event_dims, 0))) if event_dims else terms


def gaussian_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:
    posterior = gaussian(mean, clamp(logvar, bounds), event_dims)
    center = torch.zeros_like(mean) if prior_mean is None else prior_mean.expand(mean.shape)
    spread = None if prior_logvar is None else clamp(prior_logvar, bounds)
    prior = gaussian(center, spread, event_dims)
    if mean.numel() == 0:  # which Independent refuses
        return sum_event(kl_divergence(posterior.base_dist, prior.base_dist), event_dims)
    return kl_divergence(posterior, prior)


def sample(mean: Tensor, logvar: Tensor, eps: Tensor, bounds: tuple[float, float]) -> Tensor:
    posterior = gaussian(mean, clamp(logvar, bounds), 0)
    return posterior.base_dist.loc + posterior.base_dist.scale * eps


def gaussian_log_likelihood(
    x: Tensor, mean: Tensor, logvar: Tensor | None, event_dims: int, bounds: tuple[float, float]
) -> Tensor:
    spread = None if logvar is None else clamp(logvar, bounds)
    likelihood = gaussian(mean, spread, event_dims)
    if mean.numel() == 0:
        return sum_event(likelihood.base_dist.log_prob(x), event_dims)
    return likelihood.log_prob(x)


def negative_elbo(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    kl: Tensor,
    beta: float,
    reduction: str,
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:
    log_likelihood = gaussian_log_likelihood(x, mean, logvar, event_dims, bounds)
    if mean.dim() > x.dim():
        log_likelihood = log_likelihood.mean(0)
    rows = beta * kl - log_likelihood
    return {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](rows)
