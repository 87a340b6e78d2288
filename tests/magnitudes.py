"""What each result is summed from, in absolute value: the ``A`` and ``S`` of ``tolerances.py``.

Everything is float64 and in the shape of ``mean`` behind the sample axis, if there is one.
``d exp(d)`` appears wherever a difference ``d`` is rounded before it goes through an exponential.
The contract's gradient of ``expm1(d) - d`` is ``expm1(d)``, and loses nothing where d is near 0.
The float64 answer, and autograd over plain PyTorch, make such values from ``exp(d)`` and 1 instead,
and are off by an eps of those: that is ``by_autograd``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Terms(NamedTuple):
    magnitude: Tensor
    noise_slope: Tensor | None = None
    by_autograd: Tensor | None = None  # None: as magnitude


def _clamped(logvar: Tensor | None, bounds: tuple[float, float], like: Tensor) -> Tensor:
    return torch.zeros_like(like) if logvar is None else logvar.clamp(*bounds).expand(like.shape)


def halved(weight: Tensor | int, rest: Tensor | int, ratio: Tensor, whole: Tensor) -> Terms:
    return Terms(0.5 * weight * (rest + ratio), None, 0.5 * weight * (rest + whole))


def gaussian_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    bounds: tuple[float, float],
    grad_kl: Tensor,  # one a row, expanded to mean's shape
) -> dict[str, Terms]:
    v = _clamped(logvar, bounds, mean)
    v_prior = _clamped(prior_logvar, bounds, mean)
    distance = (mean if prior_mean is None else mean - prior_mean).abs()
    d = v - v_prior
    square = distance.square() * (-v_prior).exp()
    ratio = torch.expm1(d).abs() + d.abs() * d.exp()
    whole = (1 + d.abs()) * d.exp() + 1
    pull = grad_kl.abs() * distance * (-v_prior).exp()
    return {
        "kl": halved(1, square + d.abs(), ratio, whole),
        "mean": Terms(pull),
        "logvar": halved(grad_kl.abs(), 0, ratio, whole),
        "prior_mean": Terms(pull),
        "prior_logvar": halved(grad_kl.abs(), square, ratio, whole),
    }


def sample_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor,  # mean's shape, behind the sample axis if there is one
    bounds: tuple[float, float],
    grad_z: Tensor,  # shape of eps
    grad_kl: Tensor,
    *,
    drawn: bool,
) -> dict[str, Terms]:
    kl = gaussian_kl(mean, logvar, prior_mean, prior_logvar, bounds, grad_kl)
    deviation = (0.5 * _clamped(logvar, bounds, mean)).exp()
    through_z = grad_z.abs()
    slope = 0.5 * through_z * deviation
    if eps.dim() == mean.dim():
        eps, through_z, slope = eps[None], through_z[None], slope[None]
        z = mean.abs() + deviation * eps[0].abs()
    else:
        z = mean.abs() + deviation * eps.abs()
    # Each sample is a term, and the KL one more: they are stacked along a new leading axis.
    by_mean = torch.cat([through_z, kl["mean"].magnitude[None]])
    by_logvar, by_logvar_autograd = (
        torch.cat([slope * eps.abs(), terms[None]])
        for terms in (kl["logvar"].magnitude, kl["logvar"].by_autograd)
    )
    noise_slope = torch.cat([slope, torch.zeros_like(mean)[None]])
    return kl | {
        "z": Terms(z, deviation.expand(z.shape) if drawn else None),
        "mean": Terms(by_mean),
        "logvar": Terms(by_logvar, noise_slope if drawn else None, by_logvar_autograd),
    }


def gaussian_log_likelihood(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    bounds: tuple[float, float],
    grad: Tensor,  # one a row, expanded to mean's shape
) -> dict[str, Terms]:
    v = _clamped(logvar, bounds, mean)
    precision = (-v).exp()
    distance = (x - mean).abs()
    square = distance.square() * precision
    pull = grad.abs() * distance * precision
    return {
        "log_likelihood": Terms(0.5 * (math.log(2 * math.pi) + v.abs() + square)),
        "x": Terms(pull),
        "mean": Terms(pull),
        "logvar": Terms(0.5 * grad.abs() * (square + 1)),
    }


def negative_elbo(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    kl: Tensor,
    beta: float,
    bounds: tuple[float, float],
    samples: int,
    event_dims: int,
    grad: Tensor,  # of each row's loss; kl's shape
) -> dict[str, Terms]:
    """``loss`` holds the terms of each row's loss: kl's shape, and one more dimension of terms."""
    by_element = (1,) * event_dims
    rows = grad.reshape(grad.shape + by_element).expand(mean.shape)
    terms = gaussian_log_likelihood(x, mean, logvar, bounds, rows / samples)
    log_likelihood = terms.pop("log_likelihood").magnitude / samples
    event_size = math.prod(mean.shape[mean.dim() - event_dims :])
    log_likelihood = (
        log_likelihood.reshape(samples, *kl.shape, event_size).movedim(0, -1).flatten(-2)
    )
    loss = torch.cat([log_likelihood, (beta * kl).abs()[..., None]], dim=-1)
    return terms | {"loss": Terms(loss), "kl": Terms((beta * grad).abs())}
