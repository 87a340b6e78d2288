"""`vae-fast evaluate` and `vae-fast sample`: what a finished run is used for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from vae_fast import FusedVAE
from vae_fast.training import figures
from vae_fast.training.config import RunConfig, check_whole
from vae_fast.training.data import Description, load, resolve, split
from vae_fast.training.errors import UserError
from vae_fast.training.folder import RunFolder
from vae_fast.training.machine import check_backend, device_type
from vae_fast.training.module import build_model
from vae_fast.training.report import NUM_SAMPLES, Report, evaluate_model
from vae_fast.training.seeds import SAMPLES, derive
from vae_fast.training.state import model_weights
from vae_fast.training.storage import atomic_write, read_checkpoint

MOST_SAMPLES = 100_000
MOST_DRAWN = 4096  # more would be a picture of tens of thousands of pixels a side


def load_model(folder: RunFolder, config: RunConfig, described: Description) -> FusedVAE:
    """The trained model of a run, on the CPU."""
    checkpoint = read_checkpoint(folder.checkpoint)
    with torch.device("meta"):  # the config may ask for more memory than the checkpoint fills
        form = build_model(config, described.event_shape)
    weights = model_weights(folder.checkpoint, checkpoint, form)
    model = build_model(config, described.event_shape)
    model.load_state_dict(weights)
    return model


def _load_run(
    run: str | Path, backend: str | None, accelerator: str
) -> tuple[RunFolder, RunConfig, Description, FusedVAE]:
    """A run's folder, config, description of its data, and trained model."""
    folder = RunFolder(Path(run))
    config, described = folder.read_config()
    device = device_type(accelerator)
    check_backend(backend, device)
    model = load_model(folder, config, described)
    model.backend = backend
    return folder, config, described, model.to(device).eval()


def evaluate(
    run: str | Path,
    *,
    data: str | None = None,
    num_samples: int = NUM_SAMPLES,
    likelihood_samples: int = 0,
    backend: str | None = None,
    accelerator: str = "auto",
) -> Report:
    """The held-out ELBO and its terms of the run in the folder ``run``, beside the yardstick.

    Args:
        data: where the run's data is now; default where it was.
        num_samples: samples of z a row.
        likelihood_samples: of those that ln p(x) is estimated by; 0: it is not.

    Raises:
        UserError, BackendUnavailableError: as ``run.train``.
    """
    check_whole("num_samples", num_samples, 1, 10**6)
    check_whole("likelihood_samples", likelihood_samples, 0, 10**6)
    folder, config, described, model = _load_run(run, backend, accelerator)
    loaded = load(config.data if data is None else resolve(data))
    if loaded.describe() != described:
        raise UserError(f"{loaded.name} does not hold the rows that {folder.path} was trained on")
    parts = split(loaded, config.validation_fraction, config.seed)
    return evaluate_model(model, config, parts, num_samples, likelihood_samples)


def sample(
    run: str | Path,
    out: str | Path,
    *,
    num: int = 64,
    seed: int | None = None,
    backend: str | None = None,
    accelerator: str = "auto",
) -> None:
    """Write ``num`` samples of the run in the folder ``run``: a .png picture or an .npy array.

    Args:
        out: a path that ends in .png or .npy.
        seed: of z; default the run's own, which gives the samples of its picture.

    Raises:
        UserError, BackendUnavailableError: as ``run.train``.
    """
    out = Path(out)
    most = {".png": MOST_DRAWN, ".npy": MOST_SAMPLES}.get(out.suffix.lower())
    if most is None:
        raise UserError(f"--out must end in .png or .npy; got {out}")
    if not 1 <= num <= most:
        raise UserError(f"-n must be a whole number from 1 to {most} for {out}; got {num}")
    if seed is not None:
        check_whole("seed", seed, 0, 2**64 - 1)
    _, config, described, model = _load_run(run, backend, accelerator)
    drawn = model.sample(num, seed=derive(config.seed if seed is None else seed, SAMPLES))
    if not torch.isfinite(drawn).all():
        raise UserError(f"the model of {run} gives values that are not finite")
    if out.suffix.lower() == ".npy":
        content = io.BytesIO()
        np.save(content, drawn.to("cpu", torch.float32).numpy(), allow_pickle=False)
        atomic_write(out, content.getvalue())
    else:
        atomic_write(out, figures.samples(drawn, described.limits))
