"""The expressions that a person would write in PyTorch, in whatever dtype the inputs have.

What the contract measures the ops against: nobody should lose accuracy by using the package.
"""

from __future__ import annotations

import math

import torch
from cases import Case
from torch import Tensor


def gaussian_kl(
    mean: Tensor, logvar: Tensor, prior_mean: Tensor | None, prior_logvar: Tensor | None, dims: int
) -> Tensor:
    center = 0 if prior_mean is None else prior_mean
    spread = torch.zeros_like(logvar) if prior_logvar is None else prior_logvar
    d = logvar - spread
    terms = 0.5 * ((mean - center) ** 2 * torch.exp(-spread) + torch.exp(d) - 1 - d)
    return terms.sum(tuple(range(-dims, 0)))


def gaussian_log_likelihood(x: Tensor, mean: Tensor, logvar: Tensor | None, dims: int) -> Tensor:
    spread = torch.zeros_like(mean) if logvar is None else logvar
    terms = -0.5 * (math.log(2 * math.pi) + spread + (x - mean) ** 2 * torch.exp(-spread))
    return terms.sum(tuple(range(-dims, 0)))


def run(case: Case, arguments: dict[str, Tensor | None], eps: Tensor) -> dict[str, Tensor]:
    """The outputs of a case by plain PyTorch; within the bounds on the log-variance."""
    dims = case.resolved_event_dims
    if case.op == "gaussian_kl":
        return {"kl": gaussian_kl(**arguments, dims=dims)}
    if case.op == "sample_kl":
        z = arguments["mean"] + torch.exp(0.5 * arguments["logvar"]) * eps
        return {"z": z, "kl": gaussian_kl(**arguments, dims=dims)}
    kl = arguments.pop("kl", None)
    log_likelihood = gaussian_log_likelihood(**arguments, dims=dims)
    if case.op == "gaussian_log_likelihood":
        return {"log_likelihood": log_likelihood}
    return {"loss": (case.beta * kl - log_likelihood).mean()}
