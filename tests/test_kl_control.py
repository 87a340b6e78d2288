"""Free bits, capacity and balance, against plain statements of them."""

from __future__ import annotations

import pytest
import torch
from conftest import Backend, require
from torch import Tensor
from toy import small

from vae_fast import FusedVAE, GaussianPrior
from vae_fast.objectives import ELBO, FreeBits


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    """Those that statistics do not take minutes on."""
    require(Backend(request.param, "cpu"))
    return request.param


def elements(model: FusedVAE, mean: Tensor, logvar: Tensor) -> Tensor:
    """The KL of each row and dimension, from torch.distributions."""
    prior = torch.distributions.Normal(0.0, 1.0)
    if model.prior is not None:
        prior = torch.distributions.Normal(model.prior.mean, (model.prior.logvar / 2).exp())
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    return torch.distributions.kl_divergence(q, prior)


def floor(values: Tensor) -> Tensor:
    return torch.maximum(values, torch.tensor(0.4, dtype=values.dtype))


CONTROLS = {
    "none": ({}, lambda k: k.sum(1).mean()),
    "dimension": ({"free_bits": FreeBits(0.4)}, lambda k: floor(k.mean(0)).sum()),
    "element": ({"free_bits": FreeBits(0.4, per="element")}, lambda k: floor(k).sum(1).mean()),
    "row": ({"free_bits": FreeBits(0.4, per="row")}, lambda k: floor(k.sum(1)).mean()),
    "group": (
        {"free_bits": FreeBits(0.4, per="group", groups={"a": [3, 0], "b": range(1, 3)})},
        lambda k: floor(k[:, [0, 3]].sum(1).mean()) + floor(k[:, 1:3].sum(1).mean()),
    ),
    "capacity above": ({"capacity": 50.0}, lambda k: (k.sum(1).mean() - 50).abs()),
    "capacity below": ({"capacity": 0.01}, lambda k: (k.sum(1).mean() - 0.01).abs()),
}


@pytest.mark.parametrize("estimator", ["reparameterization", "score_function"])
@pytest.mark.parametrize("control", CONTROLS)
def test_controls_of_the_kl(control: str, estimator: str, backend: str) -> None:
    """Value and gradient are those of the plain statement; reported is the KL itself."""
    options, statement = CONTROLS[control]
    objective = ELBO(2, estimator, beta=0.7, **options)
    prior = GaussianPrior(4, torch.tensor([0.5, 0.0, -0.5, 0.2]), 0.3, learned=True)
    model = small(backend, objective=objective, prior=prior)
    x = torch.randn(5, 6, dtype=torch.float64)
    out = model(x, seed=3)
    # The controlled part alone: that of the likelihood is what it is without control.
    plain = small(backend, objective=ELBO(2, estimator, beta=0.0), prior=prior)
    k = elements(model, *model.encode(x))
    want = 0.7 * statement(k)
    torch.testing.assert_close(out.loss + out.log_likelihood.mean(), want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.kl, k.sum(1).detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.elbo, out.log_likelihood - out.kl)
    parameters = [*model.encoder.parameters(), *prior.parameters()]
    of_encoder = [*plain.encoder.parameters(), *prior.parameters()]
    gradients = torch.autograd.grad(out.loss, parameters)
    of_likelihood = torch.autograd.grad(
        plain(x, seed=3).loss, of_encoder, allow_unused=True, materialize_grads=True
    )
    of_kl = torch.autograd.grad(want, parameters)
    for found, a, b in zip(gradients, of_likelihood, of_kl, strict=True):
        torch.testing.assert_close(found, a + b, rtol=1e-8, atol=1e-9)


def test_free_bits_bind_in_the_tests() -> None:
    """Some parts are above and some below, or the test above shows nothing."""
    prior = GaussianPrior(4, torch.tensor([0.5, 0.0, -0.5, 0.2]), 0.3, learned=True)
    model = small("reference", prior=prior)
    k = elements(model, *model.encode(torch.randn(5, 6, dtype=torch.float64)))
    for parts in (k, k.mean(0)):
        assert 0 < (parts < 0.4).sum() < parts.numel()


@pytest.mark.parametrize("per", ["dimension", "row"])
def test_balance_weighs_what_each_side_gets(per: str, backend: str) -> None:
    prior = GaussianPrior(4, torch.tensor([0.5, 0.0, -0.5, 0.2]), 0.3, learned=True)
    bits = FreeBits(0.01, per=per)  # too few to bind
    found = {}
    for balance in (None, 0.8):
        model = small(backend, objective=ELBO(free_bits=bits, balance=balance), prior=prior)
        out = model(torch.ones(5, 6, dtype=torch.float64), seed=3)
        found[balance] = out.loss, *torch.autograd.grad(out.loss, list(prior.parameters()))
    torch.testing.assert_close(found[0.8][0], found[None][0])
    for balanced, plain in zip(found[0.8][1:], found[None][1:], strict=True):
        torch.testing.assert_close(balanced, 0.8 * plain)


def test_balance_of_the_posterior(backend: str) -> None:
    """Through the KL 1 - α arrives, through z all of it."""
    prior = GaussianPrior(4, 0.5, learned=True)
    x = torch.ones(5, 6, dtype=torch.float64)
    gradients = {}
    for name, options in {
        "whole": {}, "balanced": {"balance": 0.8}, "none": {"beta": 0.0}
    }.items():  # fmt: skip
        model = small(backend, objective=ELBO(**options), prior=prior)
        gradients[name] = torch.autograd.grad(
            model(x, seed=3).loss, list(model.encoder.parameters())
        )
    for balanced, whole, none in zip(
        gradients["balanced"], gradients["whole"], gradients["none"], strict=True
    ):
        torch.testing.assert_close(balanced, none + 0.2 * (whole - none))
