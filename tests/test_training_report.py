"""The numbers and the pictures of a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")

import torch
from sklearn.decomposition import PCA

from vae_fast import FusedVAE
from vae_fast.training.data import load, split
from vae_fast.training.errors import UserError
from vae_fast.training.grids import as_images, mosaic
from vae_fast.training.metrics import COLUMNS, append_metrics, read_metrics, start_metrics
from vae_fast.training.report import held_out_terms
from vae_fast.training.yardstick import ppca_log_likelihood


@pytest.mark.parametrize("latents", [1, 2, 8, 32])
def test_the_yardstick_is_the_score_of_pca(latents: int) -> None:
    parts = split(load("digits"), 0.2, 0)
    train, held_out = (rows.flatten(1).double().numpy() for rows in (parts.train, parts.held_out))
    expected = PCA(latents).fit(train).score(held_out)
    found = ppca_log_likelihood(parts.train, parts.held_out, latents)
    assert found == pytest.approx(expected, rel=1e-9)


def test_no_yardstick_where_nothing_is_left_over() -> None:
    rows = torch.randn(20, 4, dtype=torch.float64)
    assert ppca_log_likelihood(rows, rows, 3) is not None
    assert ppca_log_likelihood(rows, rows, 4) is None
    assert ppca_log_likelihood(rows[:3], rows, 2) is None
    flat = rows[:, :1] * torch.ones(1, 4, dtype=torch.float64)
    assert ppca_log_likelihood(flat, flat, 2) is None
    assert ppca_log_likelihood(torch.ones(20, 4), rows, 1) is None


def test_held_out_terms_are_means_over_rows_and_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FusedVAE(6, latent_dim=2, hidden_dims=(8,))
    rows = torch.randn(25, 6)
    terms = held_out_terms(model, rows, seed=3, num_samples=60)
    assert terms.elbo == pytest.approx(terms.log_likelihood - terms.kl)
    # Of the same by hand, with other noise.
    with torch.no_grad():
        mean, logvar = model.encode(rows)
        q = torch.distributions.Normal(mean, (logvar / 2).exp())
        z = q.sample((60,))
        x_mean, x_logvar = model.decode(z)
        p = torch.distributions.Normal(x_mean, (x_logvar / 2).exp())
        each = p.log_prob(rows).sum(-1)
        prior = torch.distributions.Normal(0.0, 1.0)
        kl = torch.distributions.kl_divergence(q, prior).sum(-1).mean().item()
    assert terms.kl == pytest.approx(kl, rel=1e-5)
    error = each.std(dim=0).square().mean().div(60 * 25).sqrt().item()
    assert abs(terms.log_likelihood - each.mean().item()) < 5 * 2**0.5 * error
    # The cut into batches, and samples inside the model, change neither noise nor result much.
    monkeypatch.setattr("vae_fast.training.report.CHUNK", 7)
    assert held_out_terms(model, rows, 3, 60) == pytest.approx(terms, rel=1e-5)
    assert held_out_terms(model, rows, 4, 60).log_likelihood != terms.log_likelihood


def test_mosaics_put_images_side_by_side() -> None:
    images = np.arange(5 * 2 * 3, dtype=float).reshape(5, 2, 3)
    sheet = mosaic(images, 2, 0, 1)
    assert sheet.shape == (3 * 3 - 1, 2 * 4 - 1)
    assert np.array_equal(sheet[0:2, 0:3], images[0])
    assert np.array_equal(sheet[0:2, 4:7], images[1])
    assert np.array_equal(sheet[6:8, 0:3], images[4])
    assert (
        np.isnan(sheet[2]).all() and np.isnan(sheet[:, 3]).all() and np.isnan(sheet[6:, 4:]).all()
    )
    colour = mosaic(np.stack([images] * 3, axis=-1), 2, 0, 10)
    assert colour.shape == (8, 7, 3)
    assert np.array_equal(colour[0:2, 4:7, 1], np.clip(images[1] / 10, 0, 1))


def test_what_is_an_image() -> None:
    assert as_images(np.zeros((4, 9))) is None
    assert as_images(np.zeros((4, 2, 3, 3))) is None
    for shape, expected in {
        (4, 3, 5): (4, 3, 5),
        (4, 1, 3, 5): (4, 3, 5),
        (4, 3, 2, 5): (4, 2, 5, 3),
    }.items():
        images = as_images(np.zeros(shape))
        assert images is not None and images.shape == expected


def test_metrics_keep_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    rows = [
        dict.fromkeys(COLUMNS, 0.1 * epoch) | {"epoch": epoch, "step": 11 * epoch}
        for epoch in (1, 2, 3)
    ]
    start_metrics(path, 0)
    for row in rows:
        append_metrics(path, row)
    assert read_metrics(path) == rows
    with open(path, "a") as file:
        file.write("4,44,0.1")
    assert read_metrics(path) == rows
    start_metrics(path, 22)
    assert read_metrics(path) == rows[:2]
    path.write_text(path.read_text() + "5,five,0,0,0,0,0,0,0\n")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged: row 3"):
        read_metrics(path)
