"""What is particular to sample_log_weights: samples in parts, and what its estimators leave out."""

from __future__ import annotations

import math

import pytest
import torch
from cases import FLOATS
from conftest import Backend
from tolerances import NORMAL_QUANTILE
from torch import Tensor

import vae_fast.functional as F

ESTIMATORS = ("reparameterization", "stl", "dreg")


def inputs(backend: Backend, dtype: torch.dtype = torch.float32, rows: int = 5) -> list[Tensor]:
    """A posterior and a prior."""
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(rows, 7, generator=generator) for _ in range(4)]
    return [t.to(backend.device, dtype).requires_grad_() for t in made]


def call(backend: Backend, leaves: list[Tensor], **options) -> tuple[Tensor, Tensor]:
    mean, logvar, *prior = leaves
    priors = dict(zip(("prior_mean", "prior_logvar"), prior, strict=False))
    return F.sample_log_weights(mean, logvar, **priors, **options, backend=backend.name)


def test_values_by_hand(backend: Backend) -> None:
    """q = N(1, 4), p = N(3, 2) and a sample of noise 0.5, z = 2: ½ (¼ + ln 4 - 1/2 - ln 2)."""
    leaves = [
        torch.tensor([[value]], dtype=torch.float64, device=backend.device)
        for value in (1.0, math.log(4), 3.0, math.log(2))
    ]
    eps = torch.tensor([[0.5]], dtype=torch.float64, device=backend.device)
    z, log_ratio = call(backend, leaves, eps=eps)
    assert z.item() == pytest.approx(2, abs=1e-14)
    assert log_ratio.item() == pytest.approx(0.5 * (math.log(2) - 0.25), abs=1e-14)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_z_is_that_of_sample_kl(dtype: torch.dtype, backend: Backend) -> None:
    mean, logvar, *prior = inputs(backend, dtype)
    for options in ({}, {"num_samples": 3, "row_offset": 7}):
        for priors in ({}, dict(zip(("prior_mean", "prior_logvar"), prior, strict=True))):
            given = {"seed": 9, "backend": backend.name} | options | priors
            z, log_ratio = F.sample_log_weights(mean, logvar, **given)
            assert torch.equal(z, F.sample_kl(mean, logvar, **given)[0])
            assert log_ratio.shape == z.shape[:-1]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_samples_in_parts_are_those_of_one_call(dtype: torch.dtype, backend: Backend) -> None:
    leaves = inputs(backend, dtype)
    whole = call(backend, leaves, seed=9, num_samples=6)
    for start, count in ((0, 6), (0, 1), (1, 3), (5, 1)):
        part = call(backend, leaves, seed=9, num_samples=count, sample_offset=start)
        for got, want in zip(part, whole, strict=True):
            assert torch.equal(got, want[start : start + count])
    alone = call(backend, leaves, seed=9, sample_offset=4)
    for got, want in zip(alone, whole, strict=True):
        assert torch.equal(got, want[4])


def test_gradients_in_parts_are_those_of_one_call(backend: Backend) -> None:
    leaves = inputs(backend, torch.float64)
    weights = torch.linspace(-1, 2, 6, dtype=torch.float64, device=backend.device)[:, None]

    def loss(start: int, count: int) -> Tensor:
        z, log_ratio = call(backend, leaves, seed=9, num_samples=count, sample_offset=start)
        return (z.sum(-1) * weights[start : start + count] + log_ratio.square()).sum()

    whole = torch.autograd.grad(loss(0, 6), leaves)
    parts = torch.autograd.grad(loss(0, 2) + loss(2, 4), leaves)
    for got, want in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_last_sample_there_is(backend: Backend) -> None:
    """The index is a word of 32 bits: a sample past a signed one is not that of index 0."""
    leaves = inputs(backend)
    last = 2**32 - 1
    z = [call(backend, leaves, seed=9, sample_offset=at)[0] for at in (0, last - 2**31, last)]
    pair, _ = call(backend, leaves, seed=9, num_samples=2, sample_offset=last - 1)
    assert torch.equal(pair[1], z[2])
    assert not torch.equal(z[2], z[0]) and not torch.equal(z[2], z[1])


def test_its_mean_estimates_the_divergence(backend: Backend) -> None:
    leaves = inputs(backend, torch.float64, rows=3)
    count = backend.repeats(20_000)
    _, log_ratio = call(backend, leaves, seed=1, num_samples=count)
    kl = F.gaussian_kl(*leaves, backend=backend.name)
    score = (-log_ratio.mean(0) - kl) / (log_ratio.std(0) / math.sqrt(count))
    assert bool((score.abs() < NORMAL_QUANTILE).all()), score


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_variance_where_posterior_and_prior_are_equal(estimator: str, backend: Backend) -> None:
    """The log-ratio is 0 at every z, and its derivative along the path is so exactly."""
    mean, logvar = (torch.zeros(5, 7, device=backend.device).requires_grad_() for _ in "ab")
    _, log_ratio = call(backend, [mean, logvar], seed=2, num_samples=3, estimator=estimator)
    torch.testing.assert_close(log_ratio, torch.zeros_like(log_ratio), rtol=0, atol=1e-5)
    gradients = torch.autograd.grad(log_ratio.sum(), (mean, logvar))
    for gradient in gradients:
        assert bool((gradient == 0).all()) == (estimator != "reparameterization")


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_the_gradient_left_out_has_mean_zero(estimator: str, backend: Backend) -> None:
    """Over many samples each estimator's gradient of the ELBO is that of the divergence."""
    leaves = inputs(backend, torch.float64, rows=1)
    count = backend.repeats(4000)
    (kl,) = F.gaussian_kl(*leaves, backend=backend.name)
    want = torch.autograd.grad(-kl, leaves[:2])
    shared = [t.detach().expand(count, 7).clone().requires_grad_() for t in leaves]
    _, log_ratio = call(backend, shared, seed=4, num_samples=1, estimator=estimator)
    for each, mean in zip(torch.autograd.grad(log_ratio.sum(), shared[:2]), want, strict=True):
        score = (each.mean(0) - mean[0]) / (each.std(0) / math.sqrt(count))
        assert bool((score.abs() < NORMAL_QUANTILE).all()), score


def test_doubly_reparameterised_gradients_of_the_bound(backend: Backend) -> None:
    """Tucker et al. 2019: the path counts by the square of a sample's weight, the prior by the
    weight."""
    leaves = inputs(backend, torch.float64)
    _, log_ratio = call(backend, leaves, seed=6, num_samples=4, estimator="dreg")
    bound, weights = F.importance_weighted_elbo(log_ratio, backend=backend.name)
    got = torch.autograd.grad(bound.sum(), leaves)
    _, path = call(backend, leaves, seed=6, num_samples=4, estimator="stl")
    want = [
        *torch.autograd.grad((path * weights.square()).sum(), leaves[:2], retain_graph=True),
        *torch.autograd.grad((path * weights).sum(), leaves[2:]),
    ]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_zeros_for_the_log_ratio_are_no_gradient(backend: Backend) -> None:
    """Of "dreg": no sample has a share in a gradient of zeros, and z keeps its own."""
    leaves = inputs(backend)
    z, log_ratio = call(backend, leaves, seed=6, num_samples=3, estimator="dreg")
    loss = z.square().sum()
    without = torch.autograd.grad(loss, leaves[:2], retain_graph=True)
    zeros = torch.autograd.grad(loss + 0 * log_ratio.sum(), leaves[:2])
    for a, b in zip(zeros, without, strict=True):
        assert torch.equal(a, b) and a.any()
