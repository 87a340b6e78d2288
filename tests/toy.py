"""Models whose evidence, bounds and gradients are known: z ~ N(0, 1), x|z ~ N(z, 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vae_fast import FusedVAE

EVIDENCE = -0.5 * (math.log(2 * math.pi) + math.log(2) + 0.5)  # of x = 1 under N(0, 2)


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


def small(backend: str, **options) -> FusedVAE:
    torch.manual_seed(0)
    return FusedVAE(6, 4, (8,), decoder_variance="fixed", backend=backend, **options).double()


class LinearPosterior(nn.Module):
    """A posterior near that of a linear decoder, or wider."""

    def __init__(self, weight: Tensor, variance: float, wider: float) -> None:
        super().__init__()
        precision = torch.eye(weight.shape[1], dtype=weight.dtype) + weight.T @ weight / variance
        self.mean = torch.linalg.solve(precision, weight.T) / variance
        self.logvar = -precision.diagonal().log() + wider
        self.mean, self.logvar = nn.Parameter(self.mean), nn.Parameter(self.logvar)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x @ self.mean.T
        return mean, self.logvar.expand_as(mean)


def linear_vae(backend: str, wider: float, **options) -> tuple[FusedVAE, Tensor, Tensor]:
    """A linear VAE in float64, data of it, and the data's log p(x)."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    decoder = nn.Linear(2, 5, bias=False, dtype=torch.float64)
    decoder.weight = nn.Parameter(weight)
    model = FusedVAE(
        5, 2, encoder=LinearPosterior(weight, 1.0, wider), decoder=decoder,
        decoder_variance="fixed", backend=backend, **options,
    )  # fmt: skip
    covariance = weight @ weight.T + torch.eye(5, dtype=torch.float64)
    true = torch.distributions.MultivariateNormal(torch.zeros(5, dtype=torch.float64), covariance)
    x = torch.randn(4000, 7, generator=generator, dtype=torch.float64)
    x = x[:, :2] @ weight.T + x[:, 2:]
    return model, x, true.log_prob(x)
