"""What each result is summed from, in absolute value: the ``A`` and ``S`` of ``tolerances.py``.

Everything is float64. The terms of a gradient have the shape of ``mean``, behind the sample axis if
there is one; those of an output stand in front of the output's own dimensions (``by_row``).
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


def by_row(terms: Terms, event_dims: int) -> Terms:
    """Terms of each element as those of each row: the event in one dimension, in front."""
    if event_dims == 0:
        return terms
    return Terms(*(None if t is None else t.flatten(-event_dims).movedim(-1, 0) for t in terms))


def halved(weight: Tensor | int, rest: Tensor | int, ratio: Tensor, whole: Tensor) -> Terms:
    return Terms(0.5 * weight * (rest + ratio), None, 0.5 * weight * (rest + whole))


class KLElements(NamedTuple):
    """The parts of the KL divergence of each element."""

    distance: Tensor  # of the means
    prior_precision: Tensor
    d: Tensor  # of the log-variances

    @property
    def square(self) -> Tensor:
        return self.distance.square() * self.prior_precision

    @property
    def ratio(self) -> Tensor:
        return torch.expm1(self.d).abs() + self.d.abs() * self.d.exp()

    @property
    def whole(self) -> Tensor:
        return (1 + self.d.abs()) * self.d.exp() + 1

    @property
    def kl(self) -> Tensor:
        return 0.5 * (self.square + torch.expm1(self.d) - self.d)

    @property
    def terms(self) -> Terms:
        return halved(1, self.square + self.d.abs(), self.ratio, self.whole)


def kl_elements(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    bounds: tuple[float, float],
) -> KLElements:
    v_prior = _clamped(prior_logvar, bounds, mean)
    distance = (mean if prior_mean is None else mean - prior_mean).abs()
    return KLElements(distance, (-v_prior).exp(), _clamped(logvar, bounds, mean) - v_prior)


def gaussian_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    bounds: tuple[float, float],
    event_dims: int,
    grad: Tensor,  # of each element's KL; mean's shape
    free_bits: float | None = None,
    balance: float | None = None,
) -> dict[str, Terms]:
    element = kl_elements(mean, logvar, prior_mean, prior_logvar, bounds)
    value, grad = element.terms, grad.abs()
    if free_bits is not None:
        below = element.kl < free_bits
        grad = torch.where(below, 0.0, grad)
        value = Terms(*(t if t is None else torch.where(below, free_bits, t) for t in value))
    to_posterior = grad if balance is None else (1 - balance) * grad
    to_prior = grad if balance is None else balance * grad
    pull = element.distance * element.prior_precision
    return {
        "kl": by_row(value, event_dims),
        "kl_dims": value,
        "mean": Terms(to_posterior * pull),
        "logvar": halved(to_posterior, 0, element.ratio, element.whole),
        "prior_mean": Terms(to_prior * pull),
        "prior_logvar": halved(to_prior, element.square, element.ratio, element.whole),
    }


def sample_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor,  # mean's shape, behind the sample axis if there is one
    bounds: tuple[float, float],
    event_dims: int,
    grad_z: Tensor,  # shape of eps
    grad: Tensor,  # of each element's KL; mean's shape
    free_bits: float | None,
    balance: float | None,
    *,
    drawn: bool,
) -> dict[str, Terms]:
    kl = gaussian_kl(
        mean, logvar, prior_mean, prior_logvar, bounds, event_dims, grad, free_bits, balance
    )
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
    event_dims: int,
    grad: Tensor,  # one a row, expanded to mean's shape
) -> dict[str, Terms]:
    v = _clamped(logvar, bounds, mean)
    precision = (-v).exp()
    distance = (x - mean).abs()
    square = distance.square() * precision
    pull = grad.abs() * distance * precision
    value = Terms(0.5 * (math.log(2 * math.pi) + v.abs() + square))
    return {
        "log_likelihood": by_row(value, event_dims),
        "x": Terms(pull),
        "mean": Terms(pull),
        "logvar": Terms(0.5 * grad.abs() * (square + 1)),
    }


def squared_error(x: Tensor, mean: Tensor, event_dims: int, grad: Tensor) -> dict[str, Terms]:
    distance = (x - mean).abs()
    pull = Terms(2 * grad.abs() * distance)
    value = by_row(Terms(distance.square()), event_dims)
    return {"squared_error": value, "x": pull, "mean": pull}


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
    """``loss`` holds the terms of each row's loss: one more dimension, and then kl's shape."""
    by_element = (1,) * event_dims
    rows = grad.reshape(grad.shape + by_element).expand(mean.shape)
    terms = gaussian_log_likelihood(x, mean, logvar, bounds, event_dims, rows / samples)
    log_likelihood = terms.pop("log_likelihood").magnitude / samples
    each = math.prod(mean.shape[mean.dim() - event_dims :]) * samples
    loss = torch.cat([log_likelihood.reshape(each, *kl.shape), (beta * kl).abs()[None]])
    return terms | {"loss": Terms(loss), "kl": Terms((beta * grad).abs())}


def sample_log_weights(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor,  # mean's shape, behind the sample axis if there is one
    bounds: tuple[float, float],
    event_dims: int,
    grad_z: Tensor,  # shape of eps
    grad: Tensor,  # one a sample and row, expanded to eps's shape
    share: Tensor | float,  # of the sample in the sum of grad, which weighs its path
    condition: Tensor | float,  # how much more a rounding changes that share than itself
    *,
    path_only: bool,
    drawn: bool,
) -> dict[str, Terms]:
    """A distance from the prior is off by roundings of what it is the difference of, ``span``."""
    v, v_prior = (_clamped(t, bounds, mean) for t in (logvar, prior_logvar))
    prior_mean = torch.zeros_like(mean) if prior_mean is None else prior_mean
    deviation, precision = (0.5 * v).exp(), (-v_prior).exp()
    z = mean.abs() + deviation * eps.abs()
    span, distance = z + prior_mean.abs(), mean + deviation * eps - prior_mean
    square = distance.abs() * span * precision  # twice as wrong as the distance
    path = grad_z - grad * distance * precision  # the gradient that arrives for z
    arriving = grad_z.abs() + grad.abs() * span * precision
    slope = -grad * deviation * precision  # of `path` to the noise
    own = 0.5 * grad.abs()
    if path_only:
        path, slope = share * (path + grad * eps / deviation), share * (slope + grad / deviation)
        arriving = torch.as_tensor(share).abs() * condition * (
            arriving + grad.abs() * eps.abs() / deviation
        )  # fmt: skip
        own = torch.zeros_like(own)
    magnitude = {
        "z": z,
        "log_ratio": 0.5 * (eps.square() + v.abs() + v_prior.abs()) + square,
        "mean": arriving,
        "logvar": 0.5 * deviation * eps.abs() * arriving + own,
        "prior_mean": grad.abs() * span * precision,
        "prior_logvar": grad.abs() * (square + 0.5),
    }
    by_noise = {
        "z": deviation.expand(z.shape),
        "log_ratio": eps - distance * precision * deviation,
        "mean": slope,
        "logvar": 0.5 * deviation * (path + eps * slope),
        "prior_mean": grad * deviation * precision,
        "prior_logvar": grad * distance * deviation * precision,
    }
    terms = {n: Terms(m, by_noise[n].abs() if drawn else None) for n, m in magnitude.items()}
    return terms | {"log_ratio": by_row(terms["log_ratio"], event_dims)}


def importance_weighted_elbo(log_weights: Tensor, grad: Tensor) -> dict[str, Terms]:
    """Differences from the largest log-weight, exponentiated and summed.

    A weight is off by its own rounding, that of its exponent and, through the sum, by those of all.
    """
    count = log_weights.shape[0]
    top = log_weights.amax(0)
    gap = torch.where(log_weights == -math.inf, 0.0, top - log_weights)  # of weights above 0
    raw = torch.where(log_weights == -math.inf, 0.0, (-gap).exp())
    total = torch.where(top == -math.inf, 1.0, raw.sum(0))
    weights = raw / total
    whole = top.nan_to_num(0, 0, 0).abs() + total.log() + math.log(count)
    summed = (1 + math.log2(count)) ** 0.5 + (weights * gap).sum(0)
    each = weights * (summed + gap)
    return {
        "bound": Terms(torch.cat([weights * (1 + gap), whole[None]])),
        "weights": Terms(each),
        "log_weights": Terms(grad.abs() * each),
    }


def score_function(
    signal: Tensor,
    mean: Tensor,
    logvar: Tensor,
    baseline: Tensor | None,
    eps: Tensor,  # mean's shape, behind the sample axis if there is one
    bounds: tuple[float, float],
    event_dims: int,
    grad: Tensor,  # signal's shape
    *,
    drawn: bool,
) -> dict[str, Terms]:
    """The value and the signal's gradient are handed on as they are."""
    weight = (grad * (signal if baseline is None else signal - baseline)).abs()
    weight = weight.reshape(weight.shape + (1,) * event_dims)
    precision = (-0.5 * _clamped(logvar, bounds, mean)).exp()
    slopes = (weight * precision, weight * eps.abs()) if drawn else (None, None)
    unchanged = Terms(torch.zeros_like(signal))
    return {
        "value": unchanged,
        "signal": unchanged,
        "mean": Terms(weight * precision * eps.abs(), slopes[0]),
        "logvar": Terms(0.5 * weight * (eps.square() + 1).expand(eps.shape), slopes[1]),
    }
