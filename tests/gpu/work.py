"""One call of every op, forward and backward, as the tests on a GPU run it."""

from __future__ import annotations

import torch
from torch import Tensor

import vae_fast.functional as F


def inputs(rows: int = 64, latent: int = 20, data: int = 784) -> dict[str, Tensor]:
    """Leaves on the GPU, of a posterior and of a decoder, and the data."""
    generator = torch.Generator("cuda").manual_seed(1)

    def make(cols: int, scale: float) -> Tensor:
        return scale * torch.randn(rows, cols, device="cuda", generator=generator)

    made = {name: make(latent, 0.5) for name in ("mean", "logvar")}
    made |= {name: make(data, 0.5) for name in ("x_mean", "x_logvar")}
    return {name: t.requires_grad_() for name, t in made.items()} | {"x": make(data, 1.0)}


def every_op(
    given: dict[str, Tensor], backend: str, seed: Tensor | None = None
) -> dict[str, Tensor]:
    """Outputs of all ops, and the gradients of a loss made of them."""
    mean, logvar, x, x_mean, x_logvar = (
        given[name] for name in ("mean", "logvar", "x", "x_mean", "x_logvar")
    )
    z, kl = F.sample_kl(mean, logvar, num_samples=2, seed=seed, backend=backend)
    loss = F.negative_elbo(x, x_mean, x_logvar, kl, backend=backend)
    log_likelihood = F.gaussian_log_likelihood(x, x_mean, x_logvar, backend=backend)
    divergence = F.gaussian_kl(mean, logvar, free_bits=0.1, backend=backend)
    total = 3 * loss + z.square().sum() + log_likelihood.sum() + divergence.mean()
    paths, log_ratio = F.sample_log_weights(
        mean, logvar, num_samples=3, seed=seed, estimator="dreg", backend=backend
    )
    error = F.squared_error(x, x_mean, backend=backend)
    bound, weights = F.importance_weighted_elbo(log_ratio - error, backend=backend)
    scored = torch.full((), 5, dtype=torch.int64, device=mean.device) if seed is None else seed
    signal = F.score_function(-error, mean, logvar, seed=scored, backend=backend)
    total = total + paths.sum() + bound.sum() + signal.sum()
    leaves = {name: t for name, t in given.items() if t.requires_grad}
    gradients = torch.autograd.grad(total, list(leaves.values()))
    outputs = {
        "z": z, "kl": kl, "loss": loss, "ll": log_likelihood, "divergence": divergence,
        "paths": paths, "log_ratio": log_ratio, "error": error, "bound": bound,
        "weights": weights, "signal": signal,
    }  # fmt: skip
    return {name: t.detach() for name, t in outputs.items()} | {
        f"grad {name}": g for name, g in zip(leaves, gradients, strict=True)
    }


def assert_identical(first: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, tensor in first.items():
        assert torch.equal(tensor, other[name]), name
