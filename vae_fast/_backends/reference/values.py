"""The value of every op in plain PyTorch: the readable statement of each formula.

Runs on any device, and autograd differentiates it to any order. Half-precision inputs are
computed in float32. ``event_dims`` counts the rightmost dimensions that one row's sum runs over.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vae_fast._backends.reference.common import (
    clamped,
    compute_dtype,
    noise_of,
    sum_event,
    unmoved,
)
from vae_fast._control import KLControl

LN_2PI = math.log(2 * math.pi)


def _weighted(tensor: Any, dtype: torch.dtype, weight: float) -> Any:
    """The tensor, if any, through which gradients are multiplied by ``weight`` before rounding."""
    if tensor is None or weight == 1.0:
        return tensor
    wide = tensor.to(dtype)
    return wide.detach() + weight * unmoved(wide)


def kl_elements(
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    prior_mean: Tensor | None,  # broadcastable to mean
    prior_logvar: Tensor | None,  # broadcastable to mean
    bounds: tuple[float, float],
    dtype: torch.dtype,  # computed in
) -> Tensor:  # [*batch, *event]
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
    posterior, prior = control.posterior_weight, control.prior_weight
    elements = kl_elements(
        _weighted(mean, dtype, posterior), _weighted(logvar, dtype, posterior),
        _weighted(prior_mean, dtype, prior), _weighted(prior_logvar, dtype, prior), bounds, dtype,
    )  # fmt: skip
    if control.floor > -math.inf:
        elements = torch.where(elements < control.floor, control.floor, elements)
    return elements


def gaussian_kl_forward(
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


def sample_kl_forward(
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


def squared_error_forward(x: Tensor, mean: Tensor, event_dims: int) -> Tensor:
    """The sum of (x - mean)^2 over a row, [*batch] of mean."""
    dtype = compute_dtype(x, mean)
    return sum_event((x.to(dtype) - mean.to(dtype)) ** 2, event_dims)


def gaussian_log_likelihood_forward(
    x: Tensor,  # broadcastable to mean
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor | None,  # broadcastable to mean
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:  # [*batch]
    dtype = compute_dtype(x, mean, logvar)
    return _log_likelihood(x, mean, logvar, event_dims, bounds, dtype)


def _log_likelihood(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    dtype: torch.dtype,  # computed in
) -> Tensor:
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
    dtype = compute_dtype(x, mean, logvar, kl)
    log_likelihood = _log_likelihood(x, mean, logvar, event_dims, bounds, dtype)
    if mean.dim() > x.dim():
        log_likelihood = log_likelihood.mean(0)
    loss = beta * kl.to(dtype) - log_likelihood
    if reduction == "mean":
        loss = loss.mean()
    elif reduction == "sum":
        loss = loss.sum()
    return loss, log_likelihood


def negative_elbo_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """``negative_elbo``, without the gradients that the last argument could ask for."""
    return negative_elbo(*arguments[:-1])
