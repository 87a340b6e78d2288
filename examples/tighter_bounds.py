"""Bounds on log p(x), and log p(x): a linear VAE, where all of them can be had.

With a linear decoder and one variance, p(x) is a Gaussian that can be written down. The script
trains such a model on scikit-learn's digits for a short while, so that the posterior is not yet
right, and compares the ELBO, importance-weighted bounds with more and more samples, and the exact
log-likelihood. Writes a picture; takes about half a minute:

    python examples/tighter_bounds.py [--out tighter_bounds.png]

Sources: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders"; Tipping & Bishop
1999, "Probabilistic principal component analysis".
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from linear_vae_is_ppca import LinearEncoder, digits
from torch import Tensor, nn

from vae_fast import FusedVAE

LATENTS = 8
STEPS = 250
LEARNING_RATE = 1e-2
SAMPLES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
ROWS = 256  # on which the bounds are taken
REPEATS = 8  # seeds


class Bound(NamedTuple):
    """Of log p(x) by K samples: the mean over rows and seeds in nats, and its standard error."""

    samples: int
    value: float
    error: float


def train(x: Tensor, steps: int = STEPS) -> FusedVAE:
    """A linear VAE after a few steps on x ``[N, D]``, all rows in each."""
    torch.manual_seed(0)
    features = x.shape[1]
    model = FusedVAE(
        features,
        LATENTS,
        encoder=LinearEncoder(features, LATENTS),
        decoder=nn.Linear(LATENTS, features),
        decoder_variance="shared",
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for step in range(steps):
        optimizer.zero_grad()
        model(x, seed=step).loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def exact(model: FusedVAE, x: Tensor) -> float:
    """Mean of log p(x) over the rows: x = W z + b + σ ε is N(b, W Wᵀ + σ² I)."""
    decoder = model.decoder
    assert isinstance(decoder, nn.Linear)
    weight, bias = decoder.weight.double(), decoder.bias.double()
    variance = model.decoder_logvar.double().exp()
    covariance = weight @ weight.T + variance * torch.eye(len(bias), dtype=torch.float64)
    p = torch.distributions.MultivariateNormal(bias, covariance)
    return p.log_prob(x.double()).mean().item()


def bound(model: FusedVAE, x: Tensor, samples: int, repeats: int = REPEATS) -> Bound:
    """The importance-weighted bound with K samples; with one it is the ELBO."""
    means = torch.stack(
        [
            model.log_likelihood(x, num_samples=samples, seed=seed).double().mean()
            for seed in range(repeats)
        ]
    )
    return Bound(samples, means.mean().item(), (means.std() / repeats**0.5).item())


def draw(bounds: list[Bound], log_likelihood: float, out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(log_likelihood, color="black", ls="--", label="log p(x), exact")
    axes.errorbar(
        [each.samples for each in bounds],
        [each.value for each in bounds],
        yerr=[2 * each.error for each in bounds],
        fmt="o-",
        ms=4,
        capsize=2,
        color="#d62728",
        label="importance-weighted bound",
    )
    axes.plot(
        bounds[0].samples, bounds[0].value, "o", ms=9, color="#1f77b4", label="ELBO (one sample)"
    )
    axes.set(xscale="log", xlabel="samples K", ylabel="nats a row")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(out, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tighter_bounds.png"))
    out = parser.parse_args().out
    x = digits()
    model, rows = train(x), x[:ROWS]
    log_likelihood = exact(model, rows)
    bounds = [bound(model, rows, samples) for samples in SAMPLES]
    print(f"{'':10}{'nats a row':>12}{'to log p(x)':>14}")
    for each in bounds:
        name = "ELBO" if each.samples == 1 else f"K = {each.samples}"
        print(f"{name:10}{each.value:12.3f}{log_likelihood - each.value:14.3f}")
    print(f"{'log p(x)':10}{log_likelihood:12.3f}")
    draw(bounds, log_likelihood, out)
    print(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
