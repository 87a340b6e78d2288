"""The scripts in examples/ run and learn."""

from __future__ import annotations

import pytest

pytest.importorskip("lightning")

import math
from itertools import pairwise
from pathlib import Path

import torch
from scripts import script

from vae_fast.training.machine import cpu_threads


def test_convolutional_vae() -> None:
    module = script("convolutional_vae")
    rows, held_out = module.digits()
    assert rows.shape == (1497, 1, 8, 8) and held_out.shape == (300, 1, 8, 8)
    with cpu_threads(1):
        before, *_, after = module.train(epochs=2)
    assert after > before + 40


def test_convolutional_networks_keep_gradients_apart() -> None:
    """Both halves of each network's one tensor are trained."""
    module = script("convolutional_vae")
    model = module.FusedVAE(
        (1, 8, 8), 3, encoder=module.make_encoder(3), decoder=module.make_decoder(3)
    )
    x = torch.rand(5, 1, 8, 8)
    model(x, seed=1).loss.backward()
    for last in (model.encoder[-1], model.decoder[-1]):
        assert (last.bias.grad != 0).all()
    assert model.sample(2, seed=0).shape == (2, 1, 8, 8)


def test_the_variance_of_two_estimators(tmp_path: Path) -> None:
    """What the picture shows: the score function scatters more, and more without a baseline."""
    module = script("estimator_variance")
    x = module.digits()
    with cpu_threads(1):
        run = module.train(module.REPARAMETERISED, x, steps=120, stops=2, draws=24)
    assert run.steps == [0, 60, 120] and run.elbo[-1] > run.elbo[0] + 10
    reparameterised, baseline, plain = (
        run.variance[name][-1] for name in (module.REPARAMETERISED, module.BASELINE, module.PLAIN)
    )
    assert 0 < 3 * reparameterised < baseline and 3 * baseline < plain
    module.draw({module.REPARAMETERISED: run}, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_estimators_have_one_gradient() -> None:
    """In the mean over many draws: they differ by what scatters, not by what they estimate."""
    module = script("estimator_variance")
    models = module.models()
    x = module.digits()[:4]
    sums = {}
    for name in (module.REPARAMETERISED, module.BASELINE):
        bias = models[name].encoder.heads[0].bias
        draws = torch.stack(
            [torch.autograd.grad(models[name](x, seed=s).loss, bias)[0] for s in range(1500)]
        )
        sums[name] = draws.mean(0), draws.std(0) / math.sqrt(len(draws))
    (a, a_error), (b, b_error) = sums.values()
    assert ((a - b).abs() < 4.5 * (a_error**2 + b_error**2).sqrt()).all()


def test_tighter_bounds(tmp_path: Path) -> None:
    module = script("tighter_bounds")
    x = module.digits()[:128]
    with cpu_threads(1):
        model = module.train(x, steps=250)
        exact = module.exact(model, x)
        bounds = [module.bound(model, x, samples, repeats=16) for samples in (1, 10, 500)]
    for lower, higher in pairwise(bounds):
        assert lower.value + 3 * (lower.error + higher.error) < higher.value
    assert bounds[-1].value < exact + 4 * bounds[-1].error
    module.draw(bounds, exact, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_hierarchical_vae() -> None:
    module = script("hierarchical_vae")
    with cpu_threads(1):
        before, *_, after = module.train(epochs=2)
    assert after > before + 40


def test_the_second_level_is_trained_by_the_first_ones_prior() -> None:
    """Its divergences are those of torch.distributions, and every network has a gradient."""
    module = script("hierarchical_vae")
    torch.manual_seed(0)
    model = module.HierarchicalVAE()
    x = torch.rand(5, 64)
    given = {}
    for name in ("posterior_upper", "posterior_lower", "prior_lower"):
        network = getattr(model, name)
        network.register_forward_hook(lambda _, inputs, out, n=name: given.update({n: out}))
    terms = model(x)
    normal = torch.distributions.Normal
    q1, q2, p1 = (
        normal(given[name][0], (given[name][1] / 2).exp())
        for name in ("posterior_lower", "posterior_upper", "prior_lower")
    )
    divergence = torch.distributions.kl_divergence
    torch.testing.assert_close(terms.kl_lower, divergence(q1, p1).sum(1).detach())
    torch.testing.assert_close(terms.kl_upper, divergence(q2, normal(0.0, 1.0)).sum(1).detach())
    terms.loss.backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())
    assert model.sample(3).shape == (3, 64)
