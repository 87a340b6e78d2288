"""The anchor: a trained linear VAE reaches the optimum of probabilistic PCA, known exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

pytest.importorskip("lightning")

import torch
from scripts import script
from sklearn.decomposition import PCA

from vae_fast.training.machine import cpu_threads

linear = script("linear_vae_is_ppca")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with cpu_threads(1):
        yield


def test_the_closed_form() -> None:
    x = linear.digits()
    best = linear.closed_form(x, 8)
    assert best.elbo == pytest.approx(14.2098, abs=5e-5)
    assert best.variance == pytest.approx(0.02733, abs=5e-6)
    # scikit-learn divides the covariance by N - 1, which is all that is between the two.
    assert best.elbo == pytest.approx(PCA(8).fit(x.numpy()).score(x.numpy()), abs=1e-3)


def test_the_exact_elbo_is_the_mean_over_the_noise() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 6, dtype=torch.float64)
    model = linear.FusedVAE(
        6,
        2,
        encoder=linear.LinearEncoder(6, 2),
        decoder=torch.nn.Linear(2, 6),
        decoder_variance="shared",
    ).double()
    exact = linear.exact_elbo(model, x)
    model.num_samples = 20_000
    with torch.no_grad():
        out = model(x, seed=1)
        # The spread of the mean over the samples, from that of a sample.
        p = torch.distributions.Normal(out.mean, math.exp(0))
        error = p.log_prob(x).sum(-1).mean(-1).std().item() / math.sqrt(20_000)
    assert abs(out.elbo.mean().item() - exact) < 5 * error
    assert error < 0.02


def test_a_few_steps_go_the_right_way() -> None:
    x = linear.digits()
    before, after = (linear.train(x, 8, steps, backend=None).elbo for steps in (0, 60))
    best = linear.closed_form(x, 8).elbo
    assert before + 10 < after < best


@pytest.mark.slow
def test_a_linear_vae_reaches_probabilistic_pca() -> None:
    x = linear.digits()
    best, found = linear.closed_form(x, 8), linear.train(x, 8, linear.STEPS)
    assert best.elbo - 0.02 < found.elbo <= best.elbo + 1e-3
    assert found.variance == pytest.approx(best.variance, rel=0.01)
