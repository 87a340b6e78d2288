"""The gradients of the ops in plain PyTorch, as ``docs/contract.md`` states them.

They are made of plain operations. So autograd differentiates them again, ``vmap`` maps over them,
and a tensor subclass sees each step. Where one of these is asked of a backward pass, every backend
takes the functions of this file.

``needs`` says of each gradient whether it is needed: 0 where it is not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae_fast._backends.reference.common import (
    clamped,
    compute_dtype,
    noise_of,
    over_event,
    unmoved,
)
from vae_fast._backends.reference.estimators import weighted_bound
from vae_fast._backends.reference.values import kl_elements
from vae_fast._control import KLControl

Gradients = tuple[Tensor | None, ...]
Needs = tuple[int | Tensor, ...]


def times(upstream: Tensor, local: Tensor) -> Tensor:
    """The product; 0 where nothing arrives from above, though the local gradient overflows.

    Not where it is differentiated again: its derivative by ``upstream`` is the local gradient.
    """
    product = upstream * local
    if torch.is_grad_enabled():
        return product
    return product.masked_fill(upstream == 0, 0.0)


def _inside(
    gradient: Tensor | None, logvar: Tensor | None, bounds: tuple[float, float]
) -> Tensor | None:
    """The gradient for a clamped log-variance, as one for the log-variance itself."""
    if gradient is None or logvar is None:
        return None
    low, high = bounds
    wide = logvar.detach().to(gradient.dtype)
    return torch.where((wide >= low) & (wide <= high), gradient, 0.0)


def _summed(
    gradients: Gradients,  # broadcastable to ``shape``, in the type computed in
    inputs: tuple[Tensor | None, ...],
    shape: torch.Size,
    needs: Needs,
) -> Gradients:
    """Each gradient that is needed, summed over the places where its input was used."""

    def summed(gradient: Tensor | None, input: Tensor | None, need: int | Tensor) -> Tensor | None:
        if input is None or need is False:
            return None
        if gradient is None:
            return torch.zeros_like(input)
        return gradient.expand(shape).sum_to_size(input.shape).to(input.dtype)

    return tuple(summed(*each) for each in zip(gradients, inputs, needs, strict=True))


def _plus(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _over_samples(values: Tensor, num_samples: int | None) -> Tensor:
    return values if num_samples is None else values.sum(0)


def _kl_gradients(
    upstream: Tensor,  # of the elements, broadcastable to mean
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    bounds: tuple[float, float],
    control: KLControl,
    dtype: torch.dtype,
) -> Gradients:
    if control.floor > -math.inf:
        elements = kl_elements(mean, logvar, prior_mean, prior_logvar, bounds, dtype)
        upstream = torch.where(elements.detach() < control.floor, 0.0, upstream)
    distance, v = mean.to(dtype), clamped(logvar, dtype, bounds)
    if prior_mean is not None:
        distance = distance - prior_mean.to(dtype)
    scaled = distance
    if prior_logvar is not None:
        v_p = clamped(prior_logvar, dtype, bounds)
        scaled, v = distance * torch.exp(-v_p), v - v_p
    ratio = torch.expm1(v)
    by_mean = times(upstream, scaled)
    by_prior_logvar = times(upstream, -0.5 * (distance * scaled + ratio))
    posterior, prior = control.posterior_weight, control.prior_weight
    return (
        posterior * by_mean,
        posterior * times(upstream, 0.5 * ratio),
        -prior * by_mean,
        prior * by_prior_logvar,
    )


def sample_kl_backward(
    grad_z: Tensor | None,  # [*batch, *event], behind num_samples where given
    grad_kl: Tensor | None,  # [*batch]
    grad_dims: Tensor | None,  # [*event]
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
    needs: Needs,
) -> Gradients:
    inputs = (mean, logvar, prior_mean, prior_logvar)
    dtype = compute_dtype(*inputs)
    made: list[Tensor | None] = [None] * 4
    if grad_kl is not None or grad_dims is not None:
        by_row = None if grad_kl is None else over_event(grad_kl.to(dtype), event_dims)
        upstream = _plus(by_row, None if grad_dims is None else grad_dims.to(dtype))
        assert upstream is not None
        made = list(_kl_gradients(upstream, *inputs, bounds, control, dtype))
    if grad_z is not None:
        g = grad_z.to(dtype)
        eps = noise_of(mean, eps, seed, num_samples, event_dims, row_offset, dtype)
        half_deviation = 0.5 * torch.exp(0.5 * clamped(logvar, dtype, bounds))
        made[0] = _plus(made[0], _over_samples(g, num_samples))
        made[1] = _plus(made[1], _over_samples(times(g, eps * half_deviation), num_samples))
    by_mean, by_logvar, by_prior_mean, by_prior_logvar = made
    gradients = (
        by_mean,
        _inside(by_logvar, logvar, bounds),
        by_prior_mean,
        _inside(by_prior_logvar, prior_logvar, bounds),
    )
    return _summed(gradients, inputs, mean.shape, needs)


def gaussian_kl_backward(
    grad_kl: Tensor,  # [*batch]
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
    needs: Needs,
) -> Gradients:
    return sample_kl_backward(
        None, grad_kl, None, mean, logvar, prior_mean, prior_logvar, None, None, None, event_dims,
        0, bounds, control, needs,
    )  # fmt: skip


def sample_log_weights_backward(
    grad_z: Tensor | None,  # [*batch, *event], behind num_samples where given
    grad_log_ratio: Tensor | None,  # [*batch], behind num_samples where given
    path_weight: Tensor | None,  # likewise: what a sample's path is multiplied by; None: 1
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor | None,
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    sample_offset: int,
    bounds: tuple[float, float],
    path_only: bool,  # the posterior's parameters in its own density are held
    needs: Needs,
) -> Gradients:
    inputs = (mean, logvar, prior_mean, prior_logvar)
    dtype = compute_dtype(*inputs)
    eps = noise_of(
        mean, eps, seed, num_samples, event_dims, row_offset, dtype, sample_offset
    )  # fmt: skip
    m, v = mean.to(dtype), clamped(logvar, dtype, bounds)
    deviation = torch.exp(0.5 * v)
    distance = m + deviation * eps
    if prior_mean is not None:
        distance = distance - prior_mean.to(dtype)
    scaled = distance
    if prior_logvar is not None:
        scaled = distance * torch.exp(-clamped(prior_logvar, dtype, bounds))
    path = None if grad_z is None else grad_z.to(dtype)
    by_logvar = by_prior_mean = by_prior_logvar = None
    if grad_log_ratio is not None:
        g = over_event(grad_log_ratio.to(dtype), event_dims)
        by_prior_mean = _over_samples(times(g, scaled), num_samples)
        by_prior_logvar = _over_samples(times(g, 0.5 * (distance * scaled - 1)), num_samples)
        if path_only:
            path = _plus(path, times(g, eps / deviation - scaled))
        else:
            path = _plus(path, times(g, -scaled))
            by_logvar = _over_samples(0.5 * g, num_samples)
    by_mean = None
    if path is not None:
        if path_weight is not None:
            path = times(over_event(path_weight.to(dtype), event_dims), path)
        by_mean = _over_samples(path, num_samples)
        through = _over_samples(times(path, 0.5 * deviation * eps), num_samples)
        by_logvar = _plus(by_logvar, through)
    gradients = (
        by_mean,
        _inside(by_logvar, logvar, bounds),
        by_prior_mean,
        _inside(by_prior_logvar, prior_logvar, bounds),
    )
    return _summed(gradients, inputs, mean.shape, needs)


def importance_weighted_elbo_backward(grad_bound: Tensor, log_weights: Tensor) -> Tensor:
    """By the log-weights [K, *batch]: what arrives for the bound [*batch], times the weights."""
    _, weights = weighted_bound(log_weights)
    return (grad_bound * weights).to(log_weights.dtype)


def score_function_backward(
    gradient: Tensor,  # of the signal: [*batch], behind num_samples where given
    weight: Tensor,  # of the same shape
    mean: Tensor,
    logvar: Tensor,
    eps: Tensor | None,
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    bounds: tuple[float, float],
    needs: Needs,
) -> Gradients:
    dtype = compute_dtype(mean, logvar)
    eps = noise_of(mean, eps, seed, num_samples, event_dims, row_offset, dtype)
    m, v = mean.to(dtype), clamped(logvar, dtype, bounds)
    c = over_event(times(gradient, weight).to(dtype), event_dims)
    precision = torch.exp(-0.5 * v)
    # (z - m) e^(-v/2) for the z that the present m and v give: in value, eps exactly.
    distance = eps * torch.exp(-0.5 * unmoved(v)) - unmoved(m) * precision
    by_mean = _over_samples(times(c, distance * precision), num_samples)
    by_logvar = _over_samples(times(c, 0.5 * (distance * distance - 1)), num_samples)
    gradients = (by_mean, _inside(by_logvar, logvar, bounds))
    return _summed(gradients, (mean, logvar), mean.shape, needs)


def squared_error_backward(
    gradient: Tensor,  # [*batch] of mean
    x: Tensor,
    mean: Tensor,
    event_dims: int,
    needs: Needs,
) -> Gradients:
    return gaussian_log_likelihood_backward(
        -2 * gradient, x, mean, None, event_dims, (0.0, 0.0), (*needs, False)
    )[:2]


def gaussian_log_likelihood_backward(
    grad_ll: Tensor,  # [*batch] of mean
    x: Tensor,  # [*batch, *event], or without the leading dimension of mean
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,
) -> Gradients:
    dtype = compute_dtype(grad_ll, x, mean, logvar)
    g = over_event(grad_ll.to(dtype), event_dims)
    distance = x.to(dtype) - mean.to(dtype)
    scaled, by_logvar = distance, None
    if logvar is not None:
        scaled = distance * torch.exp(-clamped(logvar, dtype, bounds))
        by_logvar = times(g, 0.5 * (distance * scaled - 1))
    by_mean = times(g, scaled)
    gradients = (-by_mean, by_mean, _inside(by_logvar, logvar, bounds))
    return _summed(gradients, (x, mean, logvar), mean.shape, needs)


def negative_elbo_backward(
    grad_loss: Tensor,  # [], or [*batch] of x for the reduction "none"
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    reduction: str,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,
) -> Gradients:
    """The gradients by x, mean and logvar for what arrives from above."""
    rows = mean.shape[: mean.dim() - event_dims]
    samples = mean.shape[0] if mean.dim() > x.dim() else 1
    count = math.prod(rows) if reduction == "mean" else samples
    grad_ll = (grad_loss * (-1.0 / max(count, 1))).expand(rows)
    return gaussian_log_likelihood_backward(grad_ll, x, mean, logvar, event_dims, bounds, needs)


def grad_kl(
    grad_loss: Tensor,  # [], or [*batch] for the reduction "none"
    kl: Tensor,  # [*batch]
    beta: float | Tensor,
    reduction: str,
) -> Tensor:
    """The gradient of the loss by kl. A hook may write to it, so it is no expanded view."""
    scale = beta / max(kl.numel(), 1) if reduction == "mean" else beta
    return (grad_loss * scale).to(kl.dtype).expand(kl.shape).clone()
