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


def sample_log_weights(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor,
    prior_logvar: Tensor,
    eps: Tensor,
    dims: int,
) -> tuple[Tensor, Tensor]:
    z = mean + torch.exp(0.5 * logvar) * eps
    log_ratio = gaussian_log_likelihood(z, prior_mean, prior_logvar, dims)
    return z, log_ratio - gaussian_log_likelihood(z, mean, logvar, dims)


def importance_weighted_elbo(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    bound = torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[0])
    return bound, torch.softmax(log_weights.detach(), 0)


def score_function(signal: Tensor, mean: Tensor, logvar: Tensor, eps: Tensor, dims: int) -> Tensor:
    z = (mean + torch.exp(0.5 * logvar) * eps).detach()
    log_q = gaussian_log_likelihood(z, mean, logvar, dims)
    return signal + signal.detach() * (log_q - log_q.detach())


Arguments = dict[str, Tensor | None]


def _sample_kl(case: Case, a: Arguments, eps: Tensor, dims: int) -> tuple[Tensor, ...]:
    return a["mean"] + torch.exp(0.5 * a["logvar"]) * eps, gaussian_kl(**a, dims=dims)


def _negative_elbo(case: Case, a: Arguments, eps: Tensor, dims: int) -> tuple[Tensor, ...]:
    log_likelihood = gaussian_log_likelihood(a["x"], a["mean"], a["logvar"], dims)
    return ((case.beta * a["kl"] - log_likelihood).mean(),)


OPS = {
    "sample_kl": _sample_kl,
    "gaussian_kl": lambda case, a, eps, dims: (gaussian_kl(**a, dims=dims),),
    "gaussian_log_likelihood": lambda case, a, eps, dims: (
        gaussian_log_likelihood(**a, dims=dims),
    ),
    "negative_elbo": _negative_elbo,
    "squared_error": lambda case, a, eps, dims: (
        ((a["x"] - a["mean"]) ** 2).sum(tuple(range(-dims, 0))),
    ),
    "sample_log_weights": lambda case, a, eps, dims: sample_log_weights(**a, eps=eps, dims=dims),
    "importance_weighted_elbo": lambda case, a, eps, dims: importance_weighted_elbo(**a),
    "score_function": lambda case, a, eps, dims: (score_function(**a, eps=eps, dims=dims),),
}


def run(case: Case, arguments: Arguments, eps: Tensor) -> dict[str, Tensor]:
    """The outputs of a case by plain PyTorch; within the bounds on the log-variance."""
    made = OPS[case.op](case, arguments, eps, case.resolved_event_dims)
    return dict(zip(case.outputs, made, strict=True))
