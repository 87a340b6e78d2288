"""What is particular to importance_weighted_elbo: known bounds, one sample, weights of 0."""

from __future__ import annotations

import math

import pytest
import torch
from cases import FLOATS
from conftest import Backend
from tolerances import NORMAL_QUANTILE
from torch import Tensor

import vae_fast.functional as F

EVIDENCE = -1.5155121  # ln N(1; 0, 2): z ~ N(0, 1), x | z ~ N(z, 1), x = 1
# E[bound] of that model with q = N(0, 1), by the number of samples.
BOUNDS = {1: -1.9189385, 2: -1.6531, 5: -1.5576, 10: -1.5349, 50: -1.5190}


def call(backend: Backend, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    return F.importance_weighted_elbo(log_weights, backend=backend.name)


def column(backend: Backend, *values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=backend.device)[:, None]


def test_values_by_hand(backend: Backend) -> None:
    bound, weights = call(backend, column(backend, math.log(1), math.log(2), math.log(5)))
    assert bound.item() == pytest.approx(math.log(8 / 3), abs=1e-14)
    assert weights.flatten().tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=1e-15)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_one_sample_is_its_own_bound(dtype: torch.dtype, backend: Backend) -> None:
    log_weights = (100 * torch.randn(1, 33)).to(backend.device, dtype).requires_grad_()
    bound, weights = call(backend, log_weights)
    assert torch.equal(bound, log_weights[0].to(bound.dtype))
    assert torch.equal(weights, torch.ones_like(weights))
    upstream = torch.randn(33, device=backend.device, dtype=bound.dtype)
    (gradient,) = torch.autograd.grad(bound, log_weights, upstream)
    assert torch.equal(gradient[0], upstream.to(dtype))


@pytest.mark.parametrize("count", BOUNDS)
def test_the_bounds_of_a_known_model(count: int, backend: Backend) -> None:
    """They rise from the ELBO towards log p(x); the log-weights are p(x|z) and the log-ratios."""
    rows = backend.repeats(20_000)
    x = torch.ones(rows, 1, dtype=torch.float64, device=backend.device)
    zeros = torch.zeros_like(x)
    z, log_ratio = F.sample_log_weights(
        zeros, zeros, num_samples=count, seed=count, backend=backend.name
    )
    log_likelihood = F.gaussian_log_likelihood(x, z, backend=backend.name)
    bound, weights = call(backend, log_likelihood + log_ratio)
    torch.testing.assert_close(weights.sum(0), torch.ones_like(bound), rtol=1e-12, atol=0)
    # The table has four digits after the point.
    off = abs(bound.mean().item() - BOUNDS[count]) - 5e-5
    assert off <= NORMAL_QUANTILE * bound.std().item() / math.sqrt(rows)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_true_posterior_has_no_variance(count: int, backend: Backend) -> None:
    """q = N(x/2, ½): every log-weight is log p(x), whatever its noise."""
    x = torch.ones(40, 1, dtype=torch.float64, device=backend.device)
    logvar = torch.full_like(x, math.log(0.5))
    z, log_ratio = F.sample_log_weights(
        x / 2, logvar, num_samples=count, seed=1, backend=backend.name
    )
    bound, weights = call(
        backend, F.gaussian_log_likelihood(x, z, backend=backend.name) + log_ratio
    )
    assert (bound - EVIDENCE).abs().max().item() < 1e-7
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / count), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_only_differences_are_exponentiated(shift: float, backend: Backend) -> None:
    """Sixteenths, which float32 holds at 1e4 as well: weights and gradients keep their bits."""
    near = (16 * torch.randn(7, 33, device=backend.device)).round() / 16
    (bound, weights), (moved, same) = (call(backend, w) for w in (near, near + shift))
    assert torch.equal(weights, same)
    torch.testing.assert_close(moved, bound + shift, rtol=3e-7, atol=0)
    gradients = []
    for log_weights in (near, near + shift):
        leaf = log_weights.requires_grad_()
        gradients.append(torch.autograd.grad(call(backend, leaf)[0].sum(), leaf)[0])
    assert torch.equal(*gradients)


@pytest.mark.parametrize("level", [-3e38, 3e38])
def test_log_weights_as_large_as_there_are(level: float, backend: Backend) -> None:
    bound, weights = call(backend, torch.full((4, 33), level, device=backend.device))
    assert torch.equal(bound, torch.full_like(bound, level))
    assert torch.equal(weights, torch.full_like(weights, 0.25))


def test_impossible_samples_have_no_weight(backend: Backend) -> None:
    some = torch.tensor(
        [[0.0, -math.inf, -math.inf], [-math.inf, -math.inf, 3.0], [0.0, -math.inf, 3.0]],
        device=backend.device,
    ).requires_grad_()
    bound, weights = call(backend, some)
    torch.testing.assert_close(
        bound.detach().cpu(), torch.tensor([math.log(2 / 3), -math.inf, math.log(2 / 3) + 3])
    )
    want = torch.tensor([[0.5, 0, 0], [0, 0, 0.5], [0.5, 0, 0.5]], device=backend.device)
    torch.testing.assert_close(weights, want, rtol=1e-6, atol=0)
    upstream = torch.tensor([1.0, 2.0, 3.0], device=backend.device)
    (gradient,) = torch.autograd.grad(bound, some, upstream)
    assert torch.equal(gradient, upstream * weights)


def test_an_infinite_log_weight(backend: Backend) -> None:
    """The bound is infinite and no weight a number: in that row alone."""
    log_weights = torch.zeros(3, 4, device=backend.device)
    log_weights[1, 2] = math.inf
    log_weights[2, 2] = -math.inf
    log_weights.requires_grad_()
    bound, weights = call(backend, log_weights)
    assert bound.tolist() == [0.0, 0.0, math.inf, 0.0]
    assert weights.isnan().all(0).tolist() == [False, False, True, False]
    (gradient,) = torch.autograd.grad(bound.sum(), log_weights)
    assert gradient.isnan().all(0).tolist() == [False, False, True, False]
    assert bool(gradient[:, [0, 1, 3]].isfinite().all())


def test_the_weights_have_no_gradient(backend: Backend) -> None:
    bound, weights = call(backend, torch.randn(3, 4, device=backend.device).requires_grad_())
    assert bound.requires_grad and not weights.requires_grad


def test_rows_do_not_depend_on_the_batch_they_are_in(backend: Backend) -> None:
    log_weights = torch.randn(9, 24, device=backend.device)
    whole = call(backend, log_weights)
    for start, stop in ((0, 1), (5, 12), (23, 24)):
        part = call(backend, log_weights[:, start:stop])
        for got, want in zip(part, whole, strict=True):
            torch.testing.assert_close(got, want[..., start:stop], rtol=1e-6, atol=1e-6)
