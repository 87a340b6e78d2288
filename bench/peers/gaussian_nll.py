"""``torch.nn.GaussianNLLLoss``, which takes the variance and not its logarithm."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.device import Setting
from bench.peers import Function
from bench.peers.eager import LOGVAR_MAX, LOGVAR_MIN, alone

# The log-variance is clamped before; this is where the loss clamps the variance once more.
EPSILON = math.exp(LOGVAR_MIN)


def _variance(logvar: Tensor) -> Tensor:
    return torch.exp(logvar.clamp(LOGVAR_MIN, LOGVAR_MAX))


def functions(setting: Setting) -> Mapping[str, Function]:
    each = nn.GaussianNLLLoss(full=True, eps=EPSILON, reduction="none")
    total = nn.GaussianNLLLoss(full=True, eps=EPSILON, reduction="sum")

    def gaussian_log_likelihood(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
        return -each(mean, x, _variance(logvar)).sum(dim=1)

    def negative_elbo(x: Tensor, mean: Tensor, logvar: Tensor, kl: Tensor) -> Tensor:
        return kl.mean() + total(mean, x, _variance(logvar)) / x.shape[0]

    return {
        "gaussian_log_likelihood": alone(gaussian_log_likelihood),
        "negative_elbo": alone(negative_elbo),
    }
