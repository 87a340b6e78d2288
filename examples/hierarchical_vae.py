"""Two levels of latents, made of the ops alone, on scikit-learn's digits.

    p(x, z1, z2) = p(x|z1) p(z1|z2) p(z2),    q(z1, z2|x) = q(z2|x) q(z1|x, z2)

    ELBO = E_q[ ln p(x|z1) - KL( q(z1|x, z2) ‖ p(z1|z2) ) ] - KL( q(z2|x) ‖ N(0, I) )

The first divergence is between two network outputs, since the prior of z1 depends on z2:
`sample_kl` takes it by `prior_mean` and `prior_logvar` and gives gradients to all four. Takes less
than half a minute on one CPU core:

    python examples/hierarchical_vae.py

Source: Sønderby et al. 2016, "Ladder variational autoencoders" (the order of inference, from the
top down).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import vae_fast.functional as F
from vae_fast.networks import GaussianMLP

PIXELS, LOWER, UPPER, HIDDEN = 64, 16, 4, 256
LOGVAR_MIN = -6.0  # of p(x|z1): a pixel that never changes would have a variance of 0
HELD_OUT = 300


class Terms(NamedTuple):
    """In nats a row."""

    loss: Tensor  # [], to minimise
    log_likelihood: Tensor  # [N]
    kl_lower: Tensor  # [N], of q(z1|x, z2) from p(z1|z2)
    kl_upper: Tensor  # [N], of q(z2|x) from N(0, I)

    def elbo(self) -> float:
        return (self.log_likelihood - self.kl_lower - self.kl_upper).mean().item()


class HierarchicalVAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.SiLU())
        self.posterior_upper = GaussianMLP((HIDDEN,), (64,), (UPPER,), outputs=2)
        self.posterior_lower = GaussianMLP((HIDDEN + UPPER,), (128,), (LOWER,), outputs=2)
        self.prior_lower = GaussianMLP((UPPER,), (128,), (LOWER,), outputs=2)
        self.decoder = GaussianMLP((LOWER,), (HIDDEN,), (PIXELS,), outputs=2)

    def forward(self, x: Tensor) -> Terms:  # [N, PIXELS]
        features = self.features(x)
        z2, kl_upper = F.sample_kl(*self.posterior_upper(features))
        prior_mean, prior_logvar = self.prior_lower(z2)
        z1, kl_lower = F.sample_kl(
            *self.posterior_lower(torch.cat([features, z2], dim=1)),
            prior_mean=prior_mean,
            prior_logvar=prior_logvar,
        )
        loss, log_likelihood = F.negative_elbo_terms(
            x, *self.decoder(z1), kl_lower + kl_upper, logvar_min=LOGVAR_MIN
        )
        return Terms(loss, log_likelihood, kl_lower.detach(), kl_upper.detach())

    @torch.no_grad()
    def sample(self, num: int) -> Tensor:
        """New x, from the top down: the mean of p(x|z1), ``[num, PIXELS]``."""
        zeros = torch.zeros(num, UPPER)
        z2, _ = F.sample_kl(zeros, zeros)
        z1, _ = F.sample_kl(*self.prior_lower(z2))
        mean, _ = self.decoder(z1)
        return mean


def digits() -> tuple[Tensor, Tensor]:
    """Digits to train on and held out, ``[N, 64]`` in [0, 1]."""
    rows = torch.from_numpy(load_digits().data / 16).float()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return rows[order[HELD_OUT:]], rows[order[:HELD_OUT]]


def train(epochs: int, batch_size: int = 64, learning_rate: float = 1e-3) -> list[float]:
    """Train, print and return the held-out ELBO, in nats a row, before and after each epoch."""
    torch.manual_seed(0)
    rows, held_out = digits()
    model = HierarchicalVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    with torch.no_grad():
        elbos = [model(held_out).elbo()]
    for epoch in range(epochs):
        for batch in rows[torch.randperm(len(rows))].split(batch_size):
            optimizer.zero_grad()
            model(batch).loss.backward()
            optimizer.step()
        with torch.no_grad():
            terms = model(held_out)
        elbos.append(terms.elbo())
        print(
            f"epoch {epoch + 1:2}/{epochs}  held-out ELBO {elbos[-1]:7.2f} nats,  "
            f"KL {terms.kl_lower.mean():.2f} below and {terms.kl_upper.mean():.2f} above",
            flush=True,
        )
    return elbos


if __name__ == "__main__":
    torch.set_num_threads(1)  # matrices this small are done sooner by one
    train(epochs=60)
