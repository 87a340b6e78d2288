"""What a trained model is worth: the held-out ELBO beside the yardstick, and the figures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from vae_fast import FusedVAE
from vae_fast.objectives import ELBO
from vae_fast.training import figures
from vae_fast.training.config import RunConfig
from vae_fast.training.data import Split
from vae_fast.training.errors import UserError
from vae_fast.training.folder import RunFolder, to_json
from vae_fast.training.latent import latent_map
from vae_fast.training.metrics import read_metrics
from vae_fast.training.module import Terms
from vae_fast.training.seeds import HELD_OUT, IMPORTANCE, SAMPLES, derive
from vae_fast.training.storage import atomic_write
from vae_fast.training.yardstick import ppca_log_likelihood

# Samples of z a row: on the digits the noise that they leave in the ELBO is below 0.05 nats.
NUM_SAMPLES = 32
CHUNK = 1024
# What is reported, whatever the model was trained by.
REPORTED = ELBO()


@dataclass(frozen=True)
class Report:
    """Means over the held-out rows, in nats a row."""

    elbo: float
    log_likelihood: float
    kl: float
    rows: int
    num_samples: int
    latent_dim: int
    ppca_log_likelihood: float | None
    log_p: float | None = None  # ln p(x), by this many samples a row
    likelihood_samples: int = 0

    def text(self) -> str:
        ppca = self.ppca_log_likelihood
        lines = [
            f"held-out rows: {self.rows}; nats a row, {self.num_samples} samples of z each",
            f"  ELBO            {self.elbo:9.2f}",
            f"  log-likelihood  {self.log_likelihood:9.2f}",
            f"  KL              {self.kl:9.2f}",
        ]
        if self.log_p is not None:
            lines.append(
                f"  ln p(x)         {self.log_p:9.2f}, of {self.likelihood_samples} samples"
            )
        model = f"probabilistic PCA with {self.latent_dim} latents"
        if ppca is None:
            lines.append(f"no yardstick: the training rows leave nothing over for {model}")
        else:
            side = "above" if self.elbo > ppca else "below"
            lines += [
                f"yardstick, the log-likelihood of {model} on the same rows",
                f"  PPCA            {ppca:9.2f}",
                f"the VAE's ELBO is {abs(self.elbo - ppca):.2f} nats {side} it",
            ]
        return "\n".join(lines)


@torch.no_grad()
def held_out_terms(model: FusedVAE, rows: Tensor, seed: int, num_samples: int) -> Terms:
    """ELBO, log-likelihood and KL of ``rows``: ``num_samples`` samples of z each.

    The noise depends on ``seed`` alone, not on how the rows are cut into batches.
    """
    parameter = next(model.parameters())
    model.eval()
    log_likelihood = kl = 0.0
    for start in range(0, len(rows), CHUNK):
        x = rows[start : start + CHUNK].to(parameter.device, parameter.dtype)
        for index in range(num_samples):
            out = REPORTED(model, x, derive(seed, HELD_OUT, index), row_offset=start)
            log_likelihood += out.log_likelihood.sum(dtype=torch.float64).item() / num_samples
            kl += out.kl.sum(dtype=torch.float64).item() / num_samples
    log_likelihood, kl = log_likelihood / len(rows), kl / len(rows)
    return Terms(log_likelihood - kl, log_likelihood, kl)


def held_out_log_p(model: FusedVAE, rows: Tensor, seed: int, num_samples: int) -> float:
    """ln p(x), the mean over ``rows``, by importance sampling."""
    parameter = next(model.parameters())
    model.eval()
    total = 0.0
    for start in range(0, len(rows), CHUNK):
        x = rows[start : start + CHUNK].to(parameter.device, parameter.dtype)
        found = model.log_likelihood(
            x, num_samples, seed=derive(seed, IMPORTANCE), row_offset=start
        )
        total += found.sum().item()
    return total / len(rows)


def evaluate_model(
    model: FusedVAE,
    config: RunConfig,
    split: Split,
    num_samples: int = NUM_SAMPLES,
    likelihood_samples: int = 0,
) -> Report:
    """The held-out terms, ln p(x) where it has samples, and the yardstick.

    Raises:
        UserError: the model gives values that are no numbers.
    """
    terms = held_out_terms(model, split.held_out, config.seed, num_samples)
    if not math.isfinite(terms.elbo):
        raise UserError(
            f"the model has a held-out ELBO of {terms.elbo}: it diverged; train one with a smaller "
            f"--learning-rate than {config.learning_rate:g}"
        )
    log_p = None
    if likelihood_samples:
        log_p = held_out_log_p(model, split.held_out, config.seed, likelihood_samples)
    return Report(
        *terms,
        rows=len(split.held_out),
        num_samples=num_samples,
        latent_dim=config.latent_dim,
        ppca_log_likelihood=ppca_log_likelihood(split.train, split.held_out, config.latent_dim),
        log_p=log_p,
        likelihood_samples=likelihood_samples,
    )


def write_report(
    folder: RunFolder,
    model: FusedVAE,
    config: RunConfig,
    split: Split,
    limits: tuple[float, float],
) -> Report:
    """Evaluate the model and write ``results.json`` and the figures."""
    report = evaluate_model(model, config, split)
    atomic_write(folder.results, to_json(asdict(report)))
    drawn = model.sample(64, seed=derive(config.seed, SAMPLES))
    pictures = {
        "curves.png": figures.curves(read_metrics(folder.metrics), report.ppca_log_likelihood),
        "reconstructions.png": figures.reconstructions(model, split.held_out, limits),
        "samples.png": figures.samples(drawn, limits),
    }
    if config.latent_dim == 2:
        pictures["latent_map.png"] = latent_map(
            model, split.held_out, split.held_out_labels, limits
        )
    for name, content in pictures.items():
        atomic_write(folder.figure(name), content)
    return report
