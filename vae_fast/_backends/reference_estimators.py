"""The gradient estimators and importance weights in plain PyTorch; part of ``reference``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vae_fast._backends.reference import clamped, compute_dtype, noise_of, sum_event


class _Shares:
    """Each sample's share in the gradient of the log-ratios, from one Function to another."""

    of_samples: Tensor | None = None  # [L, *batch]


class _TakeShares(torch.autograd.Function):
    """The identity on log-ratios [L, *batch], whose backward pass leaves the shares."""

    @staticmethod
    def forward(ctx: Any, log_ratio: Tensor, shares: _Shares) -> Tensor:
        ctx.shares = shares
        return log_ratio.view_as(log_ratio)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.shares.of_samples = gradient_shares(gradient)
        return gradient, None


class _WeighPath(torch.autograd.Function):
    """The identity on samples [L, *batch, *event]; weighs what arrives for them by the shares."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, shares: _Shares) -> Tensor:
        ctx.shares = shares
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weight = ctx.shares.of_samples
        if weight is not None:
            event_dims = gradient.dim() - weight.dim()
            gradient = gradient * weight.reshape(weight.shape + (1,) * event_dims)
        return gradient, None


def gradient_shares(gradient: Tensor) -> Tensor:
    """Each sample's share in the sum of the gradient [L, *batch] over samples; 0 if that is 0."""
    total = gradient.sum(0)
    return torch.where(total == 0, torch.zeros_like(gradient), gradient / total)


def sample_log_weights(
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    prior_mean: Tensor | None,  # broadcastable to mean
    prior_logvar: Tensor | None,  # broadcastable to mean
    eps: Tensor | None,  # shape of z
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    sample_offset: int,
    bounds: tuple[float, float],
    estimator: str,  # "reparameterization", "stl" or "dreg"
) -> tuple[Tensor, Tensor]:
    """z [*batch, *event] and log p(z) - log q(z|x) [*batch], behind num_samples where given."""
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    eps = noise_of(mean, eps, seed, num_samples, event_dims, row_offset, dtype, sample_offset)
    m, v = mean.to(dtype), clamped(logvar, dtype, bounds)
    z = m + torch.exp(0.5 * v) * eps
    shares = _Shares() if estimator == "dreg" and num_samples is not None else None
    if shares is not None:
        z = _WeighPath.apply(z, shares)
    if estimator == "reparameterization":
        terms = v + eps * eps
    else:  # through z only: q's own parameters are constants of its density
        distance = (z - z.detach()) * torch.exp(-0.5 * v.detach()) + eps  # in value, eps exactly
        terms = v.detach() + distance * distance
    center = z if prior_mean is None else z - prior_mean.to(dtype)
    if prior_logvar is None:
        terms = terms - center * center
    else:
        v_p = clamped(prior_logvar, dtype, bounds)
        terms = terms - (v_p + center * center * torch.exp(-v_p))
    log_ratio = sum_event(0.5 * terms, event_dims)
    if shares is not None:
        log_ratio = _TakeShares.apply(log_ratio, shares)
    return z.to(mean.dtype), log_ratio


def importance_weighted_elbo(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """ln of the mean over the first dimension [*batch]; normalised weights [K, *batch]."""
    log_weights = log_weights.to(compute_dtype(log_weights))
    top = log_weights.detach().amax(0)
    impossible = top == -math.inf
    ratios = torch.exp(log_weights - torch.where(impossible, torch.zeros_like(top), top))
    total = torch.where(impossible, torch.ones_like(top), ratios.sum(0))
    bound = top + torch.log(total / log_weights.shape[0])
    # An infinite `top` is the bound itself; its gradient and weights are 0 below, NaN above.
    return torch.where(top.isinf(), top, bound), (ratios / total).detach()


class _Attach(torch.autograd.Function):
    """``signal``, with which a gradient goes to ``log_density`` too, times ``weight``."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, log_density: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return signal.view_as(signal)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return gradient, gradient * weight, None


def score_function(
    signal: Tensor,  # [*batch], behind num_samples where given
    weight: Tensor,  # shape of signal: signal - baseline, a constant
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    eps: Tensor | None,  # shape of z
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    bounds: tuple[float, float],
) -> Tensor:
    """``signal``; its gradient to the Gaussian is weight * grad log q(z|x), z being held."""
    dtype = compute_dtype(mean, logvar)
    eps = noise_of(mean, eps, seed, num_samples, event_dims, row_offset, dtype)
    m, v = mean.to(dtype), clamped(logvar, dtype, bounds)
    # (z - m) e^(-v/2) for the z that the present m and v give: in value, eps exactly.
    distance = (m.detach() - m) * torch.exp(-0.5 * v) + eps * torch.exp(0.5 * (v.detach() - v))
    log_density = sum_event(-0.5 * (v + distance * distance), event_dims)
    return _Attach.apply(signal, log_density, weight)
