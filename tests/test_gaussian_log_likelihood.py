"""What is particular to gaussian_log_likelihood: exact values, shared variances, samples."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Backend
from torch import Tensor

import vae_fast.functional as F

LN_2PI = math.log(2 * math.pi)
EVIDENCE = -1.5155121  # ln N(1; 0, 2): z ~ N(0, 1), x | z ~ N(z, 1), x = 1


def values(backend: Backend, *numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64, device=backend.device)


@pytest.mark.parametrize(
    ("x", "mean", "logvar", "log_likelihood"),
    [
        (0.0, 0.0, None, -0.5 * LN_2PI),
        (0.0, 0.0, 0.0, -0.5 * LN_2PI),
        (3.0, 1.0, None, -0.5 * (LN_2PI + 4)),
        (3.0, 1.0, math.log(4), -0.5 * (LN_2PI + math.log(4) + 1)),
        (1.0, 0.0, math.log(2), EVIDENCE),
    ],
)
def test_values_by_hand(x, mean, logvar, log_likelihood: float, backend: Backend) -> None:
    arguments = [None if v is None else values(backend, v) for v in (x, mean, logvar)]
    got = F.gaussian_log_likelihood(*arguments, backend=backend.name).item()
    assert got == pytest.approx(log_likelihood, abs=1e-7)


def test_with_the_true_posterior_every_importance_weight_is_the_evidence(backend: Backend) -> None:
    """p(x|z) p(z) / q(z|x) = p(x) for every z, where q = N(x/2, 1/2)."""
    z = torch.linspace(-4, 4, 33, dtype=torch.float64, device=backend.device)[:, None]
    x, zero = torch.ones_like(z), torch.zeros_like(z)
    log_weight = (
        F.gaussian_log_likelihood(x, z, backend=backend.name)
        + F.gaussian_log_likelihood(z, zero, backend=backend.name)
        - F.gaussian_log_likelihood(
            z, x / 2, torch.full((), math.log(0.5), dtype=z.dtype, device=z.device),
            backend=backend.name,
        )
    )  # fmt: skip
    assert (log_weight - EVIDENCE).abs().max().item() < 1e-7


def test_no_log_variance_is_unit_variance(backend: Backend) -> None:
    x, mean = (torch.randn(5, 7, device=backend.device) for _ in "ab")
    implied = F.gaussian_log_likelihood(x, mean, backend=backend.name)
    given = F.gaussian_log_likelihood(x, mean, torch.zeros_like(mean), backend=backend.name)
    torch.testing.assert_close(implied, given, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 7), (5, 1), (1, 1)], ids=str)
def test_the_gradient_of_a_shared_variance_is_the_sum(shape, backend: Backend) -> None:
    x, mean = (torch.randn(5, 7, dtype=torch.float64, device=backend.device) for _ in "ab")
    shared = torch.randn(shape, dtype=torch.float64, device=backend.device).requires_grad_()
    full = shared.detach().expand(5, 7).clone().requires_grad_()
    weights = torch.randn(5, dtype=torch.float64, device=backend.device)
    gradients = []
    for logvar in (shared, full):
        log_likelihood = F.gaussian_log_likelihood(x, mean, logvar, backend=backend.name)
        gradients += torch.autograd.grad(log_likelihood @ weights, logvar)
    torch.testing.assert_close(
        gradients[0], gradients[1].sum_to_size(shape), rtol=1e-12, atol=1e-13
    )


def test_a_leading_sample_axis(backend: Backend) -> None:
    """Rows are those of x: one value a sample and row, with nothing said of event_dims."""
    x = torch.randn(4, 3, 5, dtype=torch.float64, device=backend.device).requires_grad_()
    mean = torch.randn(2, 4, 3, 5, dtype=torch.float64, device=backend.device)
    together = F.gaussian_log_likelihood(x, mean, backend=backend.name)
    assert together.shape == (2, 4)
    weights = torch.randn(2, 4, dtype=torch.float64, device=backend.device)
    (gradient,) = torch.autograd.grad((together * weights).sum(), x)
    apart = torch.stack([F.gaussian_log_likelihood(x, m, backend=backend.name) for m in mean])
    torch.testing.assert_close(together, apart, rtol=1e-14, atol=0)
    (wanted,) = torch.autograd.grad((apart * weights).sum(), x)
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-13)


def test_clamp_has_gradient_one_at_and_inside_its_bounds_and_zero_outside(backend: Backend) -> None:
    bounds = {"logvar_min": -2.0, "logvar_max": 3.0, "backend": backend.name}
    below, above = math.nextafter(-2.0, -3), math.nextafter(3.0, 4)
    logvar = values(backend, -100.0, below, -2.0, 0.0, 3.0, above, 90.0).requires_grad_()
    x, mean = torch.full_like(logvar, 2.0), torch.zeros_like(logvar)
    log_likelihood = F.gaussian_log_likelihood(x, mean, logvar, **bounds)
    (gradient,) = torch.autograd.grad(log_likelihood.sum(), logvar)
    inside = torch.tensor([[0, 0, 1, 1, 1, 0, 0]], dtype=torch.float64, device=backend.device)
    clamped = logvar.detach().clamp(-2, 3)
    want = inside * 0.5 * (4 * (-clamped).exp() - 1)
    torch.testing.assert_close(gradient, want, rtol=1e-12, atol=0)
    terms = -0.5 * (LN_2PI + clamped + 4 * (-clamped).exp())
    assert log_likelihood.item() == pytest.approx(terms.sum().item(), rel=1e-13)


def test_default_bounds(backend: Backend) -> None:
    logvar = values(backend, -100.0, -30.0, 20.0, 90.0).requires_grad_()
    x, mean = torch.full_like(logvar, 2.0), torch.zeros_like(logvar)
    log_likelihood = F.gaussian_log_likelihood(x, mean, logvar, event_dims=0, backend=backend.name)
    (gradient,) = torch.autograd.grad(log_likelihood.sum(), logvar)
    assert (gradient != 0).tolist() == [[False, True, True, False]]
    clamped = logvar.detach().clamp(-30, 20)
    want = -0.5 * (LN_2PI + clamped + 4 * (-clamped).exp())
    torch.testing.assert_close(log_likelihood, want, rtol=1e-13, atol=0)
