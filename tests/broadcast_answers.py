"""Values and gradients for ``broadcast_cases``, from the contract's formulas in plain PyTorch.

Each gradient is that of the argument as broadcast to its full shape, to be summed to its own.
Nothing here imports the package. Log-variances lie within the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

Named = dict[str, Tensor]
LN_2PI = math.log(2 * math.pi)


def over(rows: Tensor, event_dims: int) -> Tensor:
    """One value a row, beside the row's elements."""
    return rows.reshape(rows.shape + (1,) * event_dims)


def row_sums(elements: Tensor, event_dims: int) -> Tensor:
    return elements.flatten(-event_dims).sum(-1) if event_dims else elements


def sample_sums(elements: Tensor, given: Any) -> Tensor:
    return elements if given is None else elements.sum(0)


def kl_of(a: Named, upstream: Tensor) -> tuple[Tensor, Named]:
    """The KL of each element, and the gradients for what arrives for each."""
    d, precision = a["mean"] - a["prior_mean"], (-a["prior_logvar"]).exp()
    ratio = a["logvar"] - a["prior_logvar"]
    square = d * d * precision
    grad_mean = upstream * d * precision
    gradients = {
        "mean": grad_mean,
        "logvar": 0.5 * upstream * torch.expm1(ratio),
        "prior_mean": -grad_mean,
        "prior_logvar": -0.5 * upstream * (square + torch.expm1(ratio)),
    }
    return 0.5 * (square + torch.expm1(ratio) - ratio), gradients


def gaussian_kl(a: Named, event_dims: int, **_: Any) -> tuple[Named, Named]:
    elements, gradients = kl_of(a, over(a["grad kl"], event_dims))
    return {"kl": row_sums(elements, event_dims)}, gradients


def sample_kl(
    a: Named, event_dims: int, num_samples: int | None, return_dims: bool = False
) -> tuple[Named, Named]:
    upstream = over(a["grad kl"], event_dims)
    if return_dims:
        upstream = upstream + a["grad kl_dims"]
    elements, gradients = kl_of(a, upstream)
    deviation = (0.5 * a["logvar"]).exp()
    gradients["mean"] = gradients["mean"] + sample_sums(a["grad z"], num_samples)
    by_deviation = sample_sums(a["grad z"] * a["eps"], num_samples)
    gradients["logvar"] = gradients["logvar"] + 0.5 * deviation * by_deviation
    outputs = {"z": a["mean"] + deviation * a["eps"], "kl": row_sums(elements, event_dims)}
    if return_dims:
        batch_dims = elements.dim() - event_dims
        dims = elements.flatten(0, batch_dims - 1).sum(0) if batch_dims else elements
        outputs["kl_dims"] = dims
    return outputs, gradients


def sample_log_weights(
    a: Named, event_dims: int, num_samples: int | None, estimator: str
) -> tuple[Named, Named]:
    v, eps, g_r = a["logvar"], a["eps"], over(a["grad log_ratio"], event_dims)
    deviation = (0.5 * v).exp()
    z = a["mean"] + deviation * eps
    centred = z - a["prior_mean"]
    t = centred * (-a["prior_logvar"]).exp()
    elements = 0.5 * (eps * eps + v - centred * t - a["prior_logvar"])
    if estimator == "reparameterization":
        h, score = a["grad z"] - g_r * t, 0.5 * sample_sums(g_r, num_samples)
    else:
        share = g_r / g_r.sum(0) if estimator == "dreg" else 1
        h, score = share * (a["grad z"] + g_r * (eps / deviation - t)), 0
    gradients = {
        "mean": sample_sums(h, num_samples),
        "logvar": 0.5 * deviation * sample_sums(h * eps, num_samples) + score,
        "prior_mean": sample_sums(g_r * t, num_samples),
        "prior_logvar": 0.5 * sample_sums(g_r * (centred * t - 1), num_samples),
    }
    return {"z": z, "log_ratio": row_sums(elements, event_dims)}, gradients


def score_function(a: Named, event_dims: int, num_samples: int | None) -> tuple[Named, Named]:
    upstream = a["grad value"]
    c, eps = over(upstream * (a["signal"] - a["baseline"]), event_dims), a["eps"]
    gradients = {
        "signal": upstream,
        "mean": (-0.5 * a["logvar"]).exp() * sample_sums(c * eps, num_samples),
        "logvar": 0.5 * sample_sums(c * (eps * eps - 1), num_samples),
    }
    return {"value": a["signal"]}, gradients


def likelihood(a: Named, upstream: Tensor, event_dims: int) -> tuple[Tensor, Named]:
    d, precision = a["x"] - a["mean"], (-a["logvar"]).exp()
    square = d * d * precision
    grad_mean = upstream * d * precision
    gradients = {
        "x": -grad_mean,  # still to be summed over the samples that share it
        "mean": grad_mean,
        "logvar": 0.5 * upstream * (square - 1),
    }
    return row_sums(-0.5 * (LN_2PI + a["logvar"] + square), event_dims), gradients


def gaussian_log_likelihood(a: Named, event_dims: int) -> tuple[Named, Named]:
    value, gradients = likelihood(a, over(a["grad log_likelihood"], event_dims), event_dims)
    return {"log_likelihood": value}, gradients


def squared_error(a: Named, event_dims: int) -> tuple[Named, Named]:
    d = a["x"] - a["mean"]
    grad_x = 2 * over(a["grad squared_error"], event_dims) * d
    return {"squared_error": row_sums(d * d, event_dims)}, {"x": grad_x, "mean": -grad_x}


def negative_elbo(a: Named, event_dims: int, reduction: str) -> tuple[Named, Named]:
    rows, samples = a["kl"].numel(), 1
    if a["mean"].dim() > a["x"].dim():
        samples = a["mean"].shape[0]
    upstream = a["grad loss"].expand(a["kl"].shape)
    if reduction == "mean":
        upstream = upstream / max(rows, 1)
    value, gradients = likelihood(a, over(-upstream / samples, event_dims), event_dims)
    loss = a["kl"] - (value.mean(0) if a["mean"].dim() > a["x"].dim() else value)
    reduce = {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction]
    return {"loss": reduce(loss)}, gradients | {"kl": upstream}


def importance_weighted_elbo(a: Named, event_dims: int) -> tuple[Named, Named]:
    w = a["log_weights"]
    weights = w.softmax(0)
    bound = w.logsumexp(0) - math.log(w.shape[0])
    return {"bound": bound, "weights": weights}, {"log_weights": a["grad bound"] * weights}


ANSWERS: MappingProxyType[str, Callable[..., tuple[Named, Named]]] = MappingProxyType(
    {
        answer.__name__: answer
        for answer in (
            sample_kl, gaussian_kl, sample_log_weights, score_function, gaussian_log_likelihood,
            squared_error, negative_elbo, importance_weighted_elbo,
        )
    }
)  # fmt: skip
