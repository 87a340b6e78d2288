"""A linear VAE finds probabilistic PCA: a trained model beside the optimum in closed form.

With a linear encoder, a linear decoder and one shared variance, the best ELBO is the maximum of
the log-likelihood of probabilistic PCA, since the exact posterior is in the encoder's reach. The
script trains such a model on scikit-learn's digits and compares; it takes some fifteen seconds:

    python examples/linear_vae_is_ppca.py

Sources: Tipping & Bishop 1999, "Probabilistic principal component analysis"; Lucas, Tucker,
Grosse & Norouzi 2019, "Don't blame the ELBO! A linear VAE perspective on posterior collapse".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from vae_fast import FusedVAE

LATENTS = 8
STEPS = 3000
LEARNING_RATE = 1e-2


class Result(NamedTuple):
    """Mean over the rows, in nats, and the variance of p(x|z)."""

    elbo: float
    variance: float


class LinearEncoder(nn.Module):
    """q(z|x) with a mean linear in x and a log-variance that does not depend on x.

    So is the exact posterior of a linear decoder with one variance, in the right basis of z.
    """

    def __init__(self, features: int, latents: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, latents)
        self.logvar = nn.Parameter(torch.zeros(latents))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(x)
        return mean, self.logvar.expand_as(mean)


def closed_form(x: Tensor, latents: int) -> Result:
    """The maximum of PPCA's log-likelihood of x ``[N, D]``, and the variance there.

    With λ the eigenvalues of the covariance in descending order and k latents,

        σ² = mean of λ_{k+1..D},   ll = -½ ( D ln 2π + Σ_{i≤k} ln λ_i + (D - k) ln σ² + D ).

    The mean of x is the model's bias; the covariance is around it, divided by N.
    """
    features = x.shape[1]
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.double().T, correction=0)).flip(0)
    kept, rest = eigenvalues[:latents], eigenvalues[latents:]
    variance = rest.mean()
    log_determinant = kept.log().sum() + (features - latents) * variance.log()
    elbo = -0.5 * (features * math.log(2 * math.pi) + log_determinant + features)
    return Result(elbo.item(), variance.item())


@torch.no_grad()
def exact_elbo(model: FusedVAE, x: Tensor) -> float:
    """The ELBO of a model with a linear decoder, without Monte-Carlo noise.

    The log-likelihood is then quadratic in the noise ε, and the mean of a quadratic over N(0, I)
    is its mean over the 2k points ±√k e_i.
    """
    (latents,) = model.latent_shape
    points = math.sqrt(latents) * torch.eye(latents, dtype=x.dtype)
    eps = torch.cat([points, -points])[:, None].expand(-1, len(x), -1)
    model.num_samples = 2 * latents
    elbo = model(x, eps=eps.contiguous()).elbo.double().mean().item()
    model.num_samples = 1
    return elbo


def train(x: Tensor, latents: int, steps: int, backend: str | None = "cpu") -> Result:
    """Train a linear VAE on x ``[N, D]``, all rows in each step, and evaluate it exactly."""
    torch.manual_seed(0)
    features = x.shape[1]
    model = FusedVAE(
        features,
        latents,
        encoder=LinearEncoder(features, latents),
        decoder=nn.Linear(latents, features),
        decoder_variance="shared",
        backend=backend,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        model(x, seed=step).loss.backward()
        optimizer.step()
        schedule.step()
    return Result(exact_elbo(model, x), model.decoder_logvar.exp().item())


def digits() -> Tensor:
    """scikit-learn's digits, ``[1797, 64]`` in [0, 1]."""
    return torch.from_numpy(load_digits().data / 16).float()


def main() -> None:
    torch.set_num_threads(1)  # matrices this small are done sooner by one
    x = digits()
    best, found = closed_form(x, LATENTS), train(x, LATENTS, STEPS)
    print(f"{'':16}{'ELBO (nats)':>14}{'variance':>12}")
    for name, result in (("closed form", best), ("linear VAE", found)):
        print(f"{name:16}{result.elbo:14.4f}{result.variance:12.5f}")


if __name__ == "__main__":
    main()
