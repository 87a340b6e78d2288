"""What becomes of a mean and a log-variance: a scalar that each op, by its name, makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import vae_fast.functional as F

Use = Callable[[Tensor, Tensor], Tensor]


def leaf(*shape: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(device, dtype).requires_grad_()


def weighted(*outputs: Tensor) -> Tensor:
    """A scalar that has another gradient for each element."""
    return sum(
        (o.double() * torch.linspace(1, 2, o.numel(), device=o.device).view(o.shape)).sum()
        for o in outputs
    )


def sampled(backend: str | None, **options) -> Use:
    return lambda mean, logvar: weighted(
        *F.sample_kl(mean, logvar, seed=7, backend=backend, **options)
    )


def uses(backend: str | None) -> dict[str, Use]:
    """An op of each kind, of an event with one dimension or more."""

    def data(mean: Tensor) -> Tensor:
        return torch.linspace(-1, 1, mean.numel(), device=mean.device).view(mean.shape)

    def rows(mean: Tensor) -> Tensor:
        return torch.linspace(0, 1, len(mean), device=mean.device)

    return {
        "sample_kl": sampled(backend),
        "gaussian_kl": lambda m, v: weighted(F.gaussian_kl(m, v, backend=backend)),
        "sample_log_weights": lambda m, v: weighted(
            *F.sample_log_weights(m, v, seed=7, backend=backend)
        ),
        "score_function": lambda m, v: weighted(
            F.score_function(rows(m).requires_grad_(), m, v, seed=7, backend=backend)
        ),
        "gaussian_log_likelihood": lambda m, v: weighted(
            F.gaussian_log_likelihood(data(m), m, v, backend=backend)
        ),
        "negative_elbo": lambda m, v: 3 * F.negative_elbo(data(m), m, v, rows(m), backend=backend),
    }


OPS = tuple(uses(None))
