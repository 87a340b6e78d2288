"""Every op in plain PyTorch: the readable statement of each formula.

Runs on any device and is differentiable to any order by autograd. Half-precision inputs are
computed in float32. ``event_dims`` counts the rightmost dimensions that one row's sum runs over.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vae_fast._control import KLControl

LN_2PI = math.log(2 * math.pi)
_MASK = 0xFFFFFFFF


def unavailable() -> None:
    return None


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 where any input is float64, else float32."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype is torch.float64:
            return torch.float64
    return torch.float32


def _multiply_high_low(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    product = a * b  # int64 holds the low 64 bits of the product of two 32-bit words
    return (product >> 32) & _MASK, product & _MASK


def philox4x32_10(counter: tuple[Tensor, ...], seed: int | Tensor) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al. 2011) on 32-bit words kept in int64 tensors."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        high0, low0 = _multiply_high_low(0xD2511F53, c0)
        high1, low1 = _multiply_high_low(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def _box_muller(word: Tensor, next_word: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    u, w = ((r.to(torch.float32) * 2.0**-32 + 2.0**-33).to(dtype) for r in (word, next_word))
    radius = torch.sqrt(-2 * torch.log(u))
    angle = 2 * math.pi * (w - torch.round(w))  # the reduction is exact: half the rounding error
    return radius * torch.cos(angle), radius * torch.sin(angle)


def noise(
    shape: tuple[int, ...],  # batch shape + event shape
    event_dims: int,
    num_samples: int | None,
    seed: int | Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: torch.device,
    sample_offset: int = 0,
) -> Tensor:  # shape, behind num_samples where that is given
    count = math.prod(shape)
    first = row_offset * math.prod(shape[len(shape) - event_dims :])
    offset = first % 4
    blocks = torch.arange((offset + count + 3) // 4, device=device)
    blocks = blocks + ((first // 4) & (2**62 - 1))
    samples = sample_offset + torch.arange(num_samples or 1, device=device)[:, None]
    counter = torch.broadcast_tensors(
        blocks & _MASK, blocks >> 32, samples, torch.zeros_like(blocks)
    )
    words = philox4x32_10(counter, seed)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    pairs = (*_box_muller(words[0], words[1], wide), *_box_muller(words[2], words[3], wide))
    eps = torch.stack(pairs, dim=-1).flatten(1)[:, offset : offset + count].to(dtype)
    return eps.reshape(shape if num_samples is None else (num_samples, *shape))


def sum_event(terms: Tensor, event_dims: int) -> Tensor:
    return terms.flatten(terms.dim() - event_dims).sum(-1) if event_dims else terms


def clamped(logvar: Tensor, dtype: torch.dtype, bounds: tuple[float, float]) -> Tensor:
    return logvar.to(dtype).clamp(*bounds)


def unmoved(tensor: Tensor) -> Tensor:
    """Zeros, of infinities too, with the gradient of the tensor."""
    return (tensor - tensor.detach()).nan_to_num(0.0)


def _weighted(tensor: Any, dtype: torch.dtype, weight: float) -> Any:
    """The tensor, if any, through which gradients are multiplied by ``weight`` before rounding."""
    if tensor is None or weight == 1.0:
        return tensor
    wide = tensor.to(dtype)
    return wide.detach() + weight * unmoved(wide)


def _kl_elements(
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    prior_mean: Tensor | None,  # broadcastable to mean
    prior_logvar: Tensor | None,  # broadcastable to mean
    bounds: tuple[float, float],
) -> Tensor:  # [*batch, *event]
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    m, v = mean.to(dtype), clamped(logvar, dtype, bounds)
    if prior_mean is not None:
        m = m - prior_mean.to(dtype)
    if prior_logvar is None:
        square = m * m
    else:
        v_p = clamped(prior_logvar, dtype, bounds)
        square, v = m * m * torch.exp(-v_p), v - v_p
    return 0.5 * (square + (torch.expm1(v) - v))


def _controlled_kl(
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    prior_mean: Tensor | None,  # broadcastable to mean
    prior_logvar: Tensor | None,  # broadcastable to mean
    bounds: tuple[float, float],
    control: KLControl,
) -> Tensor:  # [*batch, *event]
    """The KL of each element, no less than the floor, with its gradients weighted."""
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    posterior, prior = (mean, logvar), (prior_mean, prior_logvar)
    elements = _kl_elements(
        *(_weighted(tensor, dtype, control.posterior_weight) for tensor in posterior),
        *(_weighted(tensor, dtype, control.prior_weight) for tensor in prior),
        bounds,
    )
    if control.floor > -math.inf:
        elements = torch.where(elements < control.floor, control.floor, elements)
    return elements


def gaussian_kl(
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    prior_mean: Tensor | None,  # broadcastable to mean
    prior_logvar: Tensor | None,  # broadcastable to mean
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
) -> Tensor:  # [*batch]
    elements = _controlled_kl(mean, logvar, prior_mean, prior_logvar, bounds, control)
    return sum_event(elements, event_dims)


def noise_of(
    mean: Tensor,
    eps: Tensor | None,
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    dtype: torch.dtype,
    sample_offset: int = 0,
) -> Tensor:
    """The noise of samples from a Gaussian with this mean: as given, or the seed's."""
    if eps is not None:
        return eps.to(dtype)
    assert seed is not None
    return noise(
        tuple(mean.shape), event_dims, num_samples, seed, row_offset, dtype, mean.device,
        sample_offset,
    )  # fmt: skip


def sample_kl(
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    prior_mean: Tensor | None,  # broadcastable to mean
    prior_logvar: Tensor | None,  # broadcastable to mean
    eps: Tensor | None,  # shape of z
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    bounds: tuple[float, float],
    control: KLControl,
    return_dims: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """z [*batch, *event], behind num_samples where given; kl [*batch]; and its sum over the batch
    [*event], where asked for."""
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    eps = noise_of(mean, eps, seed, num_samples, event_dims, row_offset, dtype)
    m, v = mean.to(dtype), logvar.to(dtype)  # once, so that their gradients are summed unrounded
    z = m + torch.exp(0.5 * v.clamp(*bounds)) * eps
    elements = _controlled_kl(m, v, prior_mean, prior_logvar, bounds, control)
    batch_dims = mean.dim() - event_dims
    dims = None
    if return_dims:
        dims = elements.flatten(0, batch_dims - 1).sum(0) if batch_dims else elements
    return z.to(mean.dtype), sum_event(elements, event_dims), dims


def squared_error(x: Tensor, mean: Tensor, event_dims: int) -> Tensor:
    """The sum of (x - mean)^2 over a row, [*batch] of mean."""
    dtype = compute_dtype(x, mean)
    return sum_event((x.to(dtype) - mean.to(dtype)) ** 2, event_dims)


def gaussian_log_likelihood(
    x: Tensor,  # broadcastable to mean
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor | None,  # broadcastable to mean
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:  # [*batch]
    dtype = compute_dtype(x, mean, logvar)
    square = (x.to(dtype) - mean.to(dtype)) ** 2
    if logvar is not None:
        v = clamped(logvar, dtype, bounds)
        square = v + square * torch.exp(-v)
    return sum_event(-0.5 * (LN_2PI + square), event_dims)


def negative_elbo(
    x: Tensor,  # [*batch, *event]
    mean: Tensor,  # [*batch, *event], or with a leading sample axis
    logvar: Tensor | None,  # broadcastable to mean
    kl: Tensor,  # [*batch]
    beta: float | Tensor,
    reduction: str,  # "mean", "sum" or "none"
    event_dims: int,
    bounds: tuple[float, float],
) -> tuple[Tensor, Tensor]:  # loss, log-likelihood [*batch]
    log_likelihood = gaussian_log_likelihood(x, mean, logvar, event_dims, bounds)
    if mean.dim() > x.dim():
        log_likelihood = log_likelihood.mean(0)
    dtype = compute_dtype(x, mean, logvar, kl)
    loss = beta * kl.to(dtype) - log_likelihood.to(dtype)
    if reduction == "mean":
        loss = loss.mean()
    elif reduction == "sum":
        loss = loss.sum()
    return loss, log_likelihood
