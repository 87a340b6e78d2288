"""What is particular to gaussian_kl: exact values, and no loss of digits near the prior."""

from __future__ import annotations

import math

import pytest
import torch
from cases import FLOATS, HALVES
from conftest import Backend
from torch import Tensor

import vae_fast.functional as F


def row(backend: Backend, *values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([values], dtype=dtype, device=backend.device)


@pytest.mark.parametrize(
    ("mean", "logvar", "prior_mean", "prior_logvar", "kl"),
    [
        (0.0, 0.0, None, None, 0.0),
        (1.0, 0.0, None, None, 0.5),
        (0.0, math.log(2), None, None, 0.5 * (1 - math.log(2))),
        (3.0, 0.0, 1.0, None, 2.0),
        (1.0, 0.0, None, math.log(4), 0.5 * (0.25 + 0.25 - 1 + math.log(4))),
        (1.0, math.log(4), 3.0, math.log(2), 0.5 * (2 + 2 - 1 - math.log(2))),
    ],
)
def test_values_by_hand(
    mean, logvar, prior_mean, prior_logvar, kl: float, backend: Backend
) -> None:
    arguments = [
        None if v is None else row(backend, v) for v in (mean, logvar, prior_mean, prior_logvar)
    ]
    assert F.gaussian_kl(*arguments, backend=backend.name).item() == pytest.approx(kl, abs=1e-15)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_posterior_equal_to_its_prior_has_no_kl_and_no_gradient(
    dtype: torch.dtype, backend: Backend
) -> None:
    values = [torch.randn(5, 9).to(backend.device, dtype) for _ in range(2)]
    leaves = [t.clone().requires_grad_() for t in values * 2]
    kl = F.gaussian_kl(*leaves, backend=backend.name)
    assert torch.equal(kl, torch.zeros_like(kl))
    for gradient in torch.autograd.grad(kl.sum(), leaves):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_never_below_zero_by_more_than_rounding(dtype: torch.dtype, backend: Backend) -> None:
    """exp(v) - 1 - v from rounded terms would be off by 1e-7 a term, or 1e-2 in bfloat16."""
    steps = torch.arange(-40, 1, dtype=torch.float64).exp2()
    logvar = torch.cat([-steps, steps]).to(backend.device, dtype)[None].expand(1, -1)
    mean = torch.zeros_like(logvar)
    each = F.gaussian_kl(mean, logvar, event_dims=0, backend=backend.name)
    eps = torch.finfo(each.dtype).eps
    assert bool((each >= -eps * logvar.abs()).all())
    # v^2 / 4 near 0: nothing of the size of the rounding error of 1 is left in it.
    small = logvar.double()
    want = 0.5 * (torch.expm1(small) - small)
    assert bool(((each.double() - want).abs() <= 4 * eps * small.abs()).all())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_sums_in_float32(dtype: torch.dtype, backend: Backend) -> None:
    """Ten thousand halves: a sum in float16 stops at 2048, in bfloat16 at 256."""
    mean = torch.ones(1, 10_000, dtype=dtype, device=backend.device)
    kl = F.gaussian_kl(mean, torch.zeros_like(mean), backend=backend.name)
    assert kl.dtype is torch.float32 and kl.item() == 5000


def test_additive_over_the_event(backend: Backend) -> None:
    mean, logvar = (torch.randn(4, 12, dtype=torch.float64, device=backend.device) for _ in "ab")
    whole = F.gaussian_kl(mean, logvar, backend=backend.name)
    halves = [
        F.gaussian_kl(mean[:, part], logvar[:, part], backend=backend.name)
        for part in (slice(0, 5), slice(5, 12))
    ]
    torch.testing.assert_close(sum(halves), whole, rtol=1e-14, atol=0)


def test_a_standard_prior_is_a_prior_of_zeros(backend: Backend) -> None:
    mean, logvar = (torch.randn(4, 12, device=backend.device) for _ in "ab")
    zeros = torch.zeros_like(mean)
    implied = F.gaussian_kl(mean, logvar, backend=backend.name)
    given = F.gaussian_kl(mean, logvar, zeros, zeros, backend=backend.name)
    torch.testing.assert_close(implied, given, rtol=1e-6, atol=0)


def test_prior_log_variance_is_clamped_like_the_posterior(backend: Backend) -> None:
    prior_logvar = row(backend, -50.0, -2.0, 0.0, 3.0, 50.0).requires_grad_()
    zeros = torch.zeros_like(prior_logvar)
    options = {"logvar_min": -2.0, "logvar_max": 3.0, "backend": backend.name}
    kl = F.gaussian_kl(zeros, zeros, None, prior_logvar, **options)
    clamped = prior_logvar.detach().clamp(-2, 3)
    assert kl.item() == pytest.approx((0.5 * (torch.expm1(-clamped) + clamped)).sum().item())
    (gradient,) = torch.autograd.grad(kl.sum(), prior_logvar)
    want = -0.5 * torch.expm1(-clamped) * torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])
    torch.testing.assert_close(gradient, want.to(gradient), rtol=1e-12, atol=0)
