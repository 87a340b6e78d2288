"""Why VAEs are trained by reparameterisation: the variance of two gradient estimators.

Trains one VAE on scikit-learn's digits twice from the same weights, by reparameterisation and by
the score-function estimator. Along the way it stops, draws many gradients of the encoder for one
batch by each estimator, at the same weights, and measures how far they scatter around their mean.
Writes a picture; takes about a minute:

    python examples/estimator_variance.py [--out estimator_variance.png]

Sources: Kingma & Welling 2014, "Auto-Encoding Variational Bayes", section 2.2; Williams 1992,
"Simple statistical gradient-following algorithms for connectionist reinforcement learning".
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from vae_fast import FusedVAE
from vae_fast.objectives import ELBO

LATENTS = 8
SAMPLES = 4  # of z a row, for every estimator
STEPS = 1500
STOPS = 16  # at which variances are measured
DRAWS = 64  # gradients of each estimator at a stop
BATCH = 128
LEARNING_RATE = 2e-3

REPARAMETERISED, BASELINE, PLAIN = (
    "reparameterisation", "score function, leave-one-out baseline", "score function, no baseline",
)  # fmt: skip
OBJECTIVES = {
    REPARAMETERISED: ELBO(num_samples=SAMPLES),
    BASELINE: ELBO(num_samples=SAMPLES, estimator="score_function", baseline="leave_one_out"),
    PLAIN: ELBO(num_samples=SAMPLES, estimator="score_function", baseline=None),
}
TRAINED = (REPARAMETERISED, BASELINE)
COLOURS = {REPARAMETERISED: "#d62728", BASELINE: "#1f77b4", PLAIN: "#7f7f7f"}


class Run(NamedTuple):
    """What was seen while one model was trained."""

    steps: list[int]  # of the stops
    elbo: list[float]  # mean over all rows, in nats, at each
    variance: dict[str, list[float]]  # of each estimator's gradient at each; see `noise`


def digits() -> Tensor:
    """scikit-learn's digits, ``[1797, 64]`` in [0, 1]."""
    return torch.from_numpy(load_digits().data / 16).float()


def models() -> Mapping[str, FusedVAE]:
    """One VAE with each objective: they have the same networks, not copies of them."""
    torch.manual_seed(0)
    first = FusedVAE(64, LATENTS, (64,), decoder_variance="learned", decoder_logvar_min=-4.0)
    return {
        name: FusedVAE(
            64,
            LATENTS,
            encoder=first.encoder,
            decoder=first.decoder,
            decoder_logvar_min=-4.0,
            objective=objective,
        )
        for name, objective in OBJECTIVES.items()
    }


def noise(model: FusedVAE, x: Tensor, draws: int) -> float:
    """Variance of the gradient of the loss by the encoder's parameters, summed over them.

    Of one estimate, from ``draws`` that differ in the noise alone.
    """
    parameters = list(model.encoder.parameters())
    gradients = torch.stack(
        [
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(model(x, seed=seed).loss, parameters)]
            )
            for seed in range(draws)
        ]
    )
    return gradients.var(0).sum().item()


def train(name: str, x: Tensor, steps: int = STEPS, stops: int = STOPS, draws: int = DRAWS) -> Run:
    """Train by the estimator ``name``, and measure all of them at the weights on the way."""
    alike = models()
    model = alike[name]
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(0)
    run = Run([], [], {each: [] for each in alike})
    for step in range(steps + 1):
        if step % max(1, steps // stops) == 0:
            run.steps.append(step)
            with torch.no_grad():
                run.elbo.append(alike[REPARAMETERISED](x, seed=0).elbo.mean().item())
            for each, other in alike.items():
                run.variance[each].append(noise(other, x[:BATCH], draws))
        rows = torch.randint(len(x), (BATCH,), generator=order)
        optimizer.zero_grad()
        model(x[rows], seed=step).loss.backward()
        optimizer.step()
    return run


def draw(runs: Mapping[str, Run], out: Path) -> None:
    """The ELBO of each run, and the variances along the first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, run in runs.items():
        left.plot(run.steps, run.elbo, "o-", ms=3, color=COLOURS[name], label=name)
    worst = min(run.elbo[1] for run in runs.values())
    left.set(title="trained by", xlabel="step", ylabel="ELBO, nats a row", ylim=(worst - 10, None))
    left.legend(loc="lower right")
    first: Any = next(iter(runs.values()))
    for name, variance in first.variance.items():
        right.plot(first.steps, variance, "o-", ms=3, color=COLOURS[name], label=name)
    right.set(
        title=f"{BATCH} rows, {SAMPLES} samples each",
        xlabel="step",
        ylabel="variance of the encoder's gradient",
        yscale="log",
    )
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("estimator_variance.png"))
    out = parser.parse_args().out
    x = digits()
    runs = {name: train(name, x) for name in TRAINED}
    print(f"{'':42}{'ELBO (nats)':>12}")
    for name, run in runs.items():
        print(f"{'trained by ' + name:42.42}{run.elbo[-1]:12.2f}")
    print(f"\n{'at the weights of the first':42}{'variance':>12}{'times':>10}")
    variance = {name: values[-1] for name, values in runs[REPARAMETERISED].variance.items()}
    for name, value in variance.items():
        print(f"{name:42.42}{value:12.3g}{value / variance[REPARAMETERISED]:10.1f}")
    draw(runs, out)
    print(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
