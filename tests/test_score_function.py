"""What is particular to score_function: the value handed on, and the gradient of an expectation."""

from __future__ import annotations

import math

import pytest
import torch
from cases import FLOATS
from conftest import Backend
from tolerances import NORMAL_QUANTILE
from torch import Tensor

import vae_fast.functional as F


def leaves(backend: Backend, *shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(shape, generator=generator) for _ in range(2)]
    return [t.to(backend.device, dtype).requires_grad_() for t in made]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("num_samples", [None, 3])
def test_the_value_is_the_signal(
    num_samples: int | None, dtype: torch.dtype, backend: Backend
) -> None:
    mean, logvar = leaves(backend, 5, 7, dtype=dtype)
    rows = (5,) if num_samples is None else (num_samples, 5)
    signal = torch.randn(rows).to(backend.device, dtype)
    for value in (signal, signal.fill_(math.inf), signal.fill_(math.nan)):
        for baseline in (None, value.detach(), torch.zeros((), device=backend.device)):
            given = value.clone().requires_grad_()
            got = F.score_function(
                given, mean, logvar, baseline=baseline, seed=3, num_samples=num_samples,
                backend=backend.name,
            )  # fmt: skip
            assert got.dtype is dtype and torch.equal(got.isnan(), given.isnan())
            assert torch.equal(got.nan_to_num(7), given.nan_to_num(7))
            upstream = torch.randn(rows).to(backend.device, dtype)
            (gradient,) = torch.autograd.grad(got, given, upstream)
            assert torch.equal(gradient, upstream)


def test_gradients_by_hand(backend: Backend) -> None:
    """log q is differentiated at the sample, which is held: (z - m) e^-v and ½ (ε² - 1)."""
    mean, logvar = leaves(backend, 5, 7, dtype=torch.float64)
    options = {"seed": 3, "num_samples": 2, "row_offset": 9, "backend": backend.name}
    z = F.sample_kl(mean, logvar, **options)[0].detach()
    signal = torch.randn(2, 5, dtype=torch.float64, device=backend.device)
    baseline = torch.randn(5, dtype=torch.float64, device=backend.device)
    got = F.score_function(signal, mean, logvar, baseline=baseline, **options)
    gradients = torch.autograd.grad(got.sum(), (mean, logvar))
    density = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    log_q = density.log_prob(z).sum(-1)
    want = torch.autograd.grad(((signal - baseline) * log_q).sum(), (mean, logvar))
    for a, b in zip(gradients, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_baseline_of_the_signal_leaves_no_gradient(backend: Backend) -> None:
    mean, logvar = leaves(backend, 5, 7)
    signal = torch.randn(5, device=backend.device)
    value = F.score_function(signal, mean, logvar, baseline=signal, seed=1, backend=backend.name)
    for gradient in torch.autograd.grad(value.sum(), (mean, logvar)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


# Of d/dm E[z²], z ~ N(1, 1), whose value is 2: the variance of one sample's gradient.
VARIANCES = {0.0: 30.0, 2.0: 18.0, 4.0: 14.0}


@pytest.mark.parametrize("baseline", VARIANCES)
def test_the_gradient_of_a_known_expectation(baseline: float, backend: Backend) -> None:
    """Unbiased with any baseline, and of the variance that is known."""
    count = backend.repeats(50_000)
    mean = torch.ones(count, 1, dtype=torch.float64, device=backend.device).requires_grad_()
    logvar = torch.zeros_like(mean)
    z = F.sample_kl(mean, logvar, seed=5, backend=backend.name)[0].detach()
    value = F.score_function(
        z.square().sum(1), mean, logvar, baseline=torch.full((), baseline, device=mean.device),
        seed=5, backend=backend.name,
    )  # fmt: skip
    (each,) = torch.autograd.grad(value.sum(), mean)
    score = (each.mean().item() - 2) / math.sqrt(VARIANCES[baseline] / count)
    assert abs(score) < NORMAL_QUANTILE
    # The square of a gradient has its own variance, which the sample estimates.
    squares = (each - 2).square()
    spread = (squares.mean().item() - VARIANCES[baseline]) / (squares.std() / math.sqrt(count))
    assert abs(spread) < NORMAL_QUANTILE


def test_without_gradients_none_is_recorded(backend: Backend) -> None:
    mean, logvar = leaves(backend, 5, 7)
    signal = torch.randn(5, device=backend.device).requires_grad_()
    with torch.no_grad():
        value = F.score_function(signal, mean, logvar, seed=1, backend=backend.name)
    assert not value.requires_grad and torch.equal(value, signal.detach())
    constant = F.score_function(
        signal.detach(), mean.detach(), logvar.detach(), seed=1, backend=backend.name
    )
    assert not constant.requires_grad


def test_a_half_precision_signal_loses_no_digits_to_its_baseline(backend: Backend) -> None:
    """Their difference is made in float32: 1000 - 0.25 is no bfloat16."""
    mean, logvar = (torch.zeros(1, 1, device=backend.device).requires_grad_() for _ in "ab")
    signal = torch.tensor([1000.0], dtype=torch.bfloat16, device=backend.device)
    baseline = torch.tensor([0.25], dtype=torch.bfloat16, device=backend.device)
    eps = torch.ones(1, 1, device=backend.device)
    value = F.score_function(signal, mean, logvar, baseline=baseline, eps=eps, backend=backend.name)
    (gradient,) = torch.autograd.grad(value.sum(), mean)
    assert gradient.item() == pytest.approx(999.75, rel=1e-6)


@pytest.mark.parametrize(("signal", "arriving"), [(1e40, 1e-10), (1e30, 1e-46)])
def test_a_float64_signal_beyond_float32(signal: float, arriving: float, backend: Backend) -> None:
    """Its product with what arrives is in float32's range, and neither factor need be."""
    mean, logvar = (torch.randn(2, 3, device=backend.device).requires_grad_() for _ in "ab")
    given = torch.full((2,), signal, dtype=torch.float64, device=backend.device)
    out = F.score_function(given, mean, logvar, seed=3, backend=backend.name)
    got = torch.autograd.grad(out, (mean, logvar), torch.full_like(given, arriving))
    one = F.score_function(torch.ones_like(given), mean, logvar, seed=3, backend=backend.name)
    want = torch.autograd.grad(one, (mean, logvar), torch.full_like(given, signal * arriving))
    torch.testing.assert_close(got, want)
