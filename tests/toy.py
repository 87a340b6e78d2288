"""Models whose evidence, bounds and gradients are known: z ~ N(0, 1), x|z ~ N(z, 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vae_fast import FusedVAE


class Given(nn.Module):
    """An encoder that returns its parameters, whatever x is: a Gaussian for each row."""

    def __init__(self, mean: Tensor, logvar: Tensor) -> None:
        super().__init__()
        self.mean, self.logvar = nn.Parameter(mean), nn.Parameter(logvar)

    def forward(self, _: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean, self.logvar


def toy(rows: int, mean: float, logvar: float, backend: str, **options) -> FusedVAE:
    """The model with q = N(mean, e^logvar) for each of ``rows`` rows, each a repetition."""
    encoder = Given(torch.full((rows, 1), mean), torch.full((rows, 1), logvar))
    return FusedVAE(1, 1, encoder=encoder, decoder=nn.Identity(), decoder_variance="fixed",
                    backend=backend, **options)  # fmt: skip


def row_gradients(model: FusedVAE, x: float, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """Each row's estimate of the gradient of the loss by the mean and the log-variance of q."""
    encoder = model.encoder
    rows = len(encoder.mean)
    model.zero_grad()
    model(torch.full((rows, 1), x), seed=seed).loss.backward()
    return tuple((p.grad[:, 0] * rows).double() for p in (encoder.mean, encoder.logvar))


def standard_error(values: Tensor) -> float:
    """Of the mean."""
    return values.double().std().item() / math.sqrt(len(values))


def variance_and_error(values: Tensor) -> tuple[float, float]:
    """The variance, and its own standard error, by the fourth moment."""
    centred = values.double() - values.double().mean()
    variance = centred.square().mean()
    spread = (centred**4).mean() - variance.square()
    return variance.item(), (spread / len(values)).sqrt().item()
