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
