"""Bounds of a log-variance decide which form of a kernel runs, and nothing else."""

from __future__ import annotations

import pytest
import torch
from conftest import Backend
from torch import Tensor

import vae_fast.functional as F

FAR = (-100.0, 100.0)  # beyond what the quicker form of an exponential can take


def results(bounds: dict[str, float], dtype: torch.dtype, backend: Backend) -> list[Tensor]:
    """Values and gradients of every op that clamps a log-variance."""
    torch.manual_seed(0)
    shape = (7, 53)
    x, mean = (torch.randn(shape, device=backend.device).to(dtype) for _ in range(2))
    logvar = torch.linspace(-19.0, 19.0, 7 * 53, device=backend.device).view(shape).to(dtype)
    leaves = [mean.requires_grad_(), logvar.requires_grad_()]
    options = bounds | {"backend": backend.name}
    z, kl = F.sample_kl(*leaves, seed=3, **options)
    two, _ = F.sample_kl(*leaves, seed=3, num_samples=2, prior_mean=x, **options)
    weighted, ratio = F.sample_log_weights(*leaves, seed=3, **options)
    outputs = [
        z, kl, two, weighted, ratio, F.gaussian_kl(*leaves, **options),
        F.gaussian_log_likelihood(x, *leaves, **options),
        F.negative_elbo(x, *leaves, kl.detach(), **options),
    ]  # fmt: skip
    gradients = [
        gradient
        for output in outputs
        for gradient in torch.autograd.grad(output.double().sum(), leaves, retain_graph=True)
    ]
    return [*outputs, *gradients]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_bounds_that_clamp_nothing_change_no_bit(dtype: torch.dtype, backend: Backend) -> None:
    low, high = FAR
    near = results({}, dtype, backend)
    far = results({"logvar_min": low, "logvar_max": high}, dtype, backend)
    for number, (one, other) in enumerate(zip(near, far, strict=True)):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True, msg=str(number))
