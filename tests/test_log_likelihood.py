"""log p(x) by importance sampling, against models in which it is known."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Backend, require
from tolerances import NORMAL_QUANTILE
from toy import EVIDENCE, linear_vae, standard_error, toy

from vae_fast import FusedVAE, GaussianPrior, _evidence
from vae_fast.objectives import IWAE


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    require(Backend(request.param, "cpu"))
    return request.param


def test_the_exact_posterior_gives_it_at_once(backend: str) -> None:
    model = toy(100, 0.5, -math.log(2), backend)
    found = model.log_likelihood(torch.ones(100, 1), 3, seed=1)
    assert found.dtype is torch.float64 and not found.requires_grad
    assert (found - EVIDENCE).abs().max() < 2e-6


def test_a_linear_vae(backend: str) -> None:
    model, x, evidence = linear_vae(backend, 0.7)
    error = model.log_likelihood(x, 1000, seed=1) - evidence
    # The logarithm pulls down by half the variance of the mean weight, of which this is a bound.
    assert error.std() < 0.05
    assert abs(error.mean().item()) < NORMAL_QUANTILE * standard_error(error) + 0.05**2


def test_it_is_the_bound_of_as_many_samples(backend: str) -> None:
    model, x, _ = linear_vae(backend, 1.0, objective=IWAE(7))
    bound = model(x, seed=5).elbo
    torch.testing.assert_close(model.log_likelihood(x, 7, seed=5), bound)


@pytest.mark.parametrize("chunk", [1, 3, 40, 64, 1000])
def test_the_chunks_do_not_matter(chunk: int, backend: str) -> None:
    torch.manual_seed(0)
    prior = GaussianPrior(3, 0.4, -0.3, learned=True)
    model = FusedVAE(6, 3, (8,), prior=prior, backend=backend)
    x = torch.randn(5, 6)
    whole = model.log_likelihood(x, 64, seed=5)
    torch.testing.assert_close(
        model.log_likelihood(x, 64, chunk=chunk, seed=5), whole, rtol=1e-6, atol=1e-5
    )
    rest = model.log_likelihood(x[2:], 64, seed=5, row_offset=2)
    torch.testing.assert_close(rest, whole[2:], rtol=1e-6, atol=1e-5)


def test_memory_stays_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    model = FusedVAE(6, 3, (8,), backend="reference")
    model.decoder.register_forward_hook(lambda _, given, out: seen.append(len(given[0])))
    monkeypatch.setattr(_evidence, "ELEMENTS", 600)
    model.log_likelihood(torch.randn(5, 6), 101, seed=1)
    assert seen == [100] * 5 + [5]
    model.log_likelihood(torch.randn(200, 6), 2, seed=1)
    assert seen[-2:] == [200, 200]


def test_sums_of_any_size(backend: str) -> None:
    """Weights far below float32's smallest number."""
    torch.manual_seed(0)
    model = FusedVAE(6, 3, (8,), decoder_variance="fixed", backend=backend)
    found = model.log_likelihood(torch.full((2, 6), 1e3), 10, seed=1)
    assert found.isfinite().all() and (found < -2e6).all()


def test_the_seed_governs_it(backend: str) -> None:
    model, x, _ = linear_vae(backend, 1.0)
    first = model.log_likelihood(x[:5], 4)
    assert not torch.equal(first, model.log_likelihood(x[:5], 4))
    torch.manual_seed(3)
    first = model.log_likelihood(x[:5], 4)
    torch.manual_seed(3)
    assert torch.equal(first, model.log_likelihood(x[:5], 4))
    assert model.log_likelihood(x[:0], 4).shape == (0,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, "num_samples must be at least 1; got 0"),
        ({"num_samples": 1.5}, TypeError, "num_samples must be an int; got float"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1; got 0"),
        ({"chunk": True}, TypeError, "chunk must be an int; got bool"),
        ({"seed": -1}, ValueError, "seed .*-1"),
        ({"row_offset": -1}, ValueError, "row_offset .*-1"),
    ],
)
def test_what_it_refuses(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        FusedVAE(6, 3, (8,)).log_likelihood(torch.zeros(2, 6), **options)
