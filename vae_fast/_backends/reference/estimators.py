"""The gradient estimators and importance weights in plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vae_fast._backends import is_recorded
from vae_fast._backends.reference.common import (
    clamped,
    compute_dtype,
    noise_of,
    over_event,
    sum_event,
    unmoved,
)


class _WeighPath(torch.autograd.Function):
    """z and the log-ratios, what arrives along z's path being weighed by the samples' shares.

    The log-ratios come twice: with the gradient through z, and with that of the prior.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        z: Tensor,  # [L, *batch, *event]
        through_z: Tensor,  # [L, *batch]
        through_prior: Tensor,  # [L, *batch]
    ) -> tuple[Tensor, Tensor]:
        return z.view_as(z), through_z.view_as(through_z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor | None, grad_log_ratio: Tensor | None) -> Any:
        if grad_log_ratio is None:
            return grad_z, None, None
        share = gradient_shares(grad_log_ratio)
        if grad_z is not None:
            grad_z = grad_z * over_event(share, grad_z.dim() - share.dim())
        return grad_z, grad_log_ratio * share, grad_log_ratio


class _RefusingForwardMode(_WeighPath):
    """It, for callers other than the compiler, which has no forward mode and takes no ``jvp``."""

    @staticmethod
    def jvp(ctx: Any, *_tangents: Tensor | None) -> Any:
        raise NotImplementedError(
            'estimator="dreg" has no forward-mode derivative, since it weighs the path of a sample '
            'by what arrives for the bound from above; use estimator="reparameterization"'
        )


def gradient_shares(gradient: Tensor) -> Tensor:
    """Each sample's share in the sum of the gradient [L, *batch] over samples; 0 if that is 0.

    Where no sample has a gradient each path counts in full, as without one: compiled callers send
    zeros for a gradient that does not arrive.
    """
    total = gradient.sum(0)
    share = torch.where(total == 0, torch.zeros_like(gradient), gradient / total)
    return torch.where((gradient == 0).all(0), torch.ones_like(gradient), share)


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
    m_p = None if prior_mean is None else prior_mean.to(dtype)
    v_p = None if prior_logvar is None else clamped(prior_logvar, dtype, bounds)
    z = m + torch.exp(0.5 * v) * eps
    if estimator == "reparameterization":
        terms = v + eps * eps
    else:  # through z only: q's own parameters are constants of its density
        distance = unmoved(z) * torch.exp(-0.5 * v.detach()) + eps
        terms = v.detach() + distance * distance
    if estimator == "dreg" and num_samples is not None:
        if is_recorded():
            raise NotImplementedError(
                'estimator="dreg" cannot be exported or traced in plain PyTorch: the program would '
                'have another gradient; use estimator="reparameterization", whose values are the '
                "same, or name a compiled backend"
            )
        held = (None if p is None else p.detach() for p in (m_p, v_p))
        through_z = sum_event(0.5 * (terms - _prior_terms(z, *held)), event_dims)
        through_prior = sum_event(-0.5 * _prior_terms(z.detach(), m_p, v_p), event_dims)
        compiling = torch.compiler.is_dynamo_compiling()
        weigh = _WeighPath if compiling else _RefusingForwardMode
        z, log_ratio = weigh.apply(z, through_z, through_prior)
    else:
        log_ratio = sum_event(0.5 * (terms - _prior_terms(z, m_p, v_p)), event_dims)
    return z.to(mean.dtype), log_ratio


def _prior_terms(z: Tensor, m_p: Tensor | None, v_p: Tensor | None) -> Tensor:
    """-2 log p(z), without its constant, of each element."""
    center = z if m_p is None else z - m_p
    return center * center if v_p is None else v_p + center * center * torch.exp(-v_p)


def sample_log_weights_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """``sample_log_weights`` in value, which no estimator changes."""
    untyped: Any = sample_log_weights
    return untyped(*arguments, "reparameterization")


def weighted_bound(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """ln of the mean over the first dimension [*batch]; normalised weights [K, *batch]."""
    log_weights = log_weights.to(compute_dtype(log_weights))
    top = log_weights.detach().amax(0)
    impossible = top == -math.inf
    ratios = torch.exp(log_weights - torch.where(impossible, torch.zeros_like(top), top))
    total = torch.where(impossible, torch.ones_like(top), ratios.sum(0))
    bound = top + torch.log(total / log_weights.shape[0])
    # An infinite `top` is the bound itself; its gradient and weights are 0 below, NaN above.
    return torch.where(top.isinf(), top, bound), ratios / total


def importance_weighted_elbo_forward(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """``weighted_bound``, the weights without gradient."""
    bound, weights = weighted_bound(log_weights)
    return bound, weights.detach()


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
    if not torch.compiler.is_dynamo_compiling() and weight.is_inference():
        weight = weight.clone()  # which can be saved
    eps = noise_of(mean, eps, seed, num_samples, event_dims, row_offset, dtype)
    m, v = mean.to(dtype), clamped(logvar, dtype, bounds)
    # (z - m) e^(-v/2) for the z that the present m and v give: in value, eps exactly.
    distance = eps * torch.exp(-0.5 * unmoved(v)) - unmoved(m) * torch.exp(-0.5 * v)
    log_density = sum_event(-0.5 * (v + distance * distance), event_dims)
    attached = signal + (weight * unmoved(log_density)).to(signal.dtype)
    return torch.where(weight.isfinite(), attached, signal)
