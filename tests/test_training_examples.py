"""The scripts in examples/ run and learn."""

from __future__ import annotations

import pytest

pytest.importorskip("lightning")

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
