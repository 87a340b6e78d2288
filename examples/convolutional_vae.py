"""A convolutional VAE: `FusedVAE` around networks of one's own, on scikit-learn's digits.

Any module will do that returns `(mean, logvar)`, or one tensor with both along dimension 1. Takes
well under a minute on one CPU core:

    python examples/convolutional_vae.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from vae_fast import FusedVAE

LATENTS = 16
HELD_OUT = 300


def make_encoder(latents: int) -> nn.Module:
    """[N, 1, 8, 8] to [N, 2·latents]: the means, then the log-variances, of q(z|x)."""
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.SiLU(),
        nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1),  # [N, 64, 4, 4]
        nn.SiLU(),
        nn.Conv2d(64, 128, kernel_size=4, stride=2, padding=1),  # [N, 128, 2, 2]
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(128 * 2 * 2, 2 * latents),
    )


def make_decoder(latents: int) -> nn.Module:
    """[N, latents] to [N, 2, 8, 8]: the means and the log-variances of p(x|z) as two channels."""
    return nn.Sequential(
        nn.Linear(latents, 128 * 2 * 2),
        nn.SiLU(),
        nn.Unflatten(1, (128, 2, 2)),
        nn.ConvTranspose2d(128, 64, kernel_size=4, stride=2, padding=1),  # [N, 64, 4, 4]
        nn.SiLU(),
        nn.ConvTranspose2d(64, 32, kernel_size=4, stride=2, padding=1),  # [N, 32, 8, 8]
        nn.SiLU(),
        nn.Conv2d(32, 2, kernel_size=3, padding=1),
    )


def digits() -> tuple[Tensor, Tensor]:
    """Digits to train on and held out, ``[N, 1, 8, 8]`` in [0, 1]."""
    images = torch.from_numpy(load_digits().images / 16).float()[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[HELD_OUT:]], images[order[:HELD_OUT]]


@torch.no_grad()
def held_out_elbo(model: FusedVAE, x: Tensor, samples: int = 16) -> float:
    """Mean over the rows of x, in nats; the mean of ``samples`` estimates."""
    return sum(model(x, seed=seed).elbo.mean().item() for seed in range(samples)) / samples


def train(epochs: int, batch_size: int = 64, learning_rate: float = 2e-3) -> list[float]:
    """Train, print and return the held-out ELBO, in nats a row, before and after each epoch."""
    torch.manual_seed(0)
    rows, held_out = digits()
    model = FusedVAE(
        (1, 8, 8), LATENTS, encoder=make_encoder(LATENTS), decoder=make_decoder(LATENTS)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    elbos = [held_out_elbo(model, held_out)]
    for epoch in range(epochs):
        for batch in rows[torch.randperm(len(rows))].split(batch_size):
            optimizer.zero_grad()
            model(batch).loss.backward()
            optimizer.step()
        elbos.append(held_out_elbo(model, held_out))
        print(f"epoch {epoch + 1:2}/{epochs}  held-out ELBO {elbos[-1]:7.2f} nats", flush=True)
    return elbos


if __name__ == "__main__":
    train(epochs=20)
