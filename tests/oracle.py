"""The float64 answers that every backend is held to.

Values come from ``torch.distributions`` and their gradients from autograd over them. Noise comes
from a NumPy implementation of the published generator. Nothing here imports the package.
"""

from __future__ import annotations

import functools
import math

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
    sample_offset: int = 0,
) -> Tensor:
    """float64 noise of ``shape``, behind ``num_samples`` where given. Kept: do not write to it."""
    row_size = int(np.prod(shape[len(shape) - event_dims :], dtype=np.uint64))
    count = int(np.prod(shape, dtype=np.uint64))
    first = np.uint64(row_offset * row_size % 2**64)
    element = first + np.arange(count, dtype=np.uint64)
    samples = range(sample_offset, sample_offset + (num_samples or 1))
    planes = [noise_at(seed, sample, element) for sample in samples]
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


def kl_elements(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    bounds: tuple[float, float],
    free_bits: float | None = None,
    balance: float | None = None,
) -> Tensor:
    """The KL divergence of each element, of mean's shape."""
    center = torch.zeros_like(mean) if prior_mean is None else prior_mean.expand(mean.shape)
    spread = None if prior_logvar is None else clamp(prior_logvar, bounds)
    q = gaussian(mean, clamp(logvar, bounds), 0).base_dist
    p = gaussian(center, spread, 0).base_dist
    if balance is None:
        elements = kl_divergence(q, p)
    else:
        held_q, held_p = (Normal(n.loc.detach(), n.scale.detach(), False) for n in (q, p))
        elements = (1 - balance) * kl_divergence(q, held_p) + balance * kl_divergence(held_q, p)
    if free_bits is not None:
        elements = torch.maximum(elements, torch.full_like(elements, free_bits))
    return elements


def gaussian_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:
    elements = kl_elements(mean, logvar, prior_mean, prior_logvar, bounds)
    return sum_event(elements, event_dims)


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


def squared_error(x: Tensor, mean: Tensor, event_dims: int) -> Tensor:
    squares = torch.nn.functional.mse_loss(x.expand(mean.shape), mean, reduction="none")
    return sum_event(squares, event_dims)


def log_density(standardised: Tensor, deviation: Tensor, event_dims: int) -> Tensor:
    """log N(z; m, deviation^2) by change of variables, of (z - m) / deviation."""
    standard = Normal(torch.zeros_like(standardised), 1.0, validate_args=False)
    return sum_event(standard.log_prob(standardised) - deviation.log(), event_dims)


def shares(gradient: Tensor) -> Tensor:
    """Each sample's in the sum of a gradient over samples; 1 where every one is 0."""
    total = gradient.sum(0)
    share = torch.where(total == 0, 0.0, gradient / total)
    return torch.where(gradient.abs().sum(0) == 0, 1.0, share)


def sample_log_weights(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor,  # shape of z
    event_dims: int,
    bounds: tuple[float, float],
    estimator: str,
) -> tuple[Tensor, Tensor]:
    """z, and log p(z) - log q(z|x), whose gradients are the estimator's."""
    deviation = (0.5 * clamp(logvar, bounds)).exp()
    z = mean + deviation * eps
    standardised = eps
    if estimator != "reparameterization":  # q's parameters held, and the density taken at z
        deviation = deviation.detach()
        moved = (z - z.detach()).nan_to_num(0)  # 0 in value, of an infinite z too
        standardised = eps + moved / deviation  # z - m would lose digits
    center = torch.zeros_like(mean) if prior_mean is None else prior_mean
    spread = torch.zeros_like(mean) if prior_logvar is None else clamp(prior_logvar, bounds)
    prior = Normal(center, (0.5 * spread).exp(), validate_args=False)
    log_ratio = sum_event(prior.log_prob(z), event_dims)
    log_ratio = log_ratio - log_density(standardised, deviation, event_dims)
    if estimator == "dreg" and eps.dim() > mean.dim() and z.requires_grad:
        share: list[Tensor] = []
        if log_ratio.requires_grad:
            log_ratio.register_hook(lambda g: share.append(shares(g)))
        z.register_hook(
            lambda g: g * share[0].reshape(share[0].shape + (1,) * event_dims) if share else g
        )
    return z, log_ratio


def importance_weighted_elbo(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """The bound, and the weights: those of a categorical distribution; zeros where all are -inf."""
    top = log_weights.detach().amax(0)
    logits = torch.where(top == -math.inf, 0.0, log_weights - top)
    bound = top + logits.logsumexp(0) - math.log(log_weights.shape[0])
    weights = torch.where(top == -math.inf, 0.0, logits.detach().softmax(0))
    return torch.where(top.isinf(), top, bound), weights


def score_function(
    signal: Tensor,
    mean: Tensor,
    logvar: Tensor,
    baseline: Tensor | None,
    eps: Tensor,
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:
    """The surrogate signal + (signal - baseline) log q(z|x), in value the signal; z is held."""
    deviation = (0.5 * clamp(logvar, bounds)).exp()
    held = eps * (deviation.detach() / deviation)
    log_q = log_density(held - (mean - mean.detach()) / deviation, deviation, event_dims)
    weight = signal.detach() if baseline is None else signal.detach() - baseline
    nothing = weight.nan_to_num(0, 0, 0) * (log_q - log_q.detach()).nan_to_num(0, 0, 0)
    return signal + nothing
