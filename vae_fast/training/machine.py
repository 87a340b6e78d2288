"""Where a run computes: the device, the threads, and what Lightning says meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from vae_fast import functional
from vae_fast.training.config import RunConfig
from vae_fast.training.errors import UserError


def device_type(accelerator: str) -> str:
    """ "cpu" or "cuda"; UserError where a GPU is asked for and there is none."""
    available = torch.cuda.is_available()
    if accelerator == "gpu" and not available:
        raise UserError(
            "--accelerator gpu needs a GPU that torch can use, and it finds none: "
            "use --accelerator cpu, or see `vae-fast doctor`"
        )
    return "cuda" if available and accelerator != "cpu" else "cpu"


def check_backend(backend: str | None, device: str) -> None:
    """Raise BackendUnavailableError, with the remedy, where ``backend`` cannot run here."""
    try:
        functional.noise((1, 1), seed=0, device=device, backend=backend)
    except ValueError as error:  # VAE_FAST_BACKEND is no backend's name
        raise UserError(str(error)) from error


def check_machine(config: RunConfig) -> str:
    """The device type to run on; raises where this machine cannot do what the config asks."""
    device = device_type(config.accelerator)
    if device == "cuda" and config.devices > torch.cuda.device_count():
        raise UserError(
            f"--devices must be at most {torch.cuda.device_count()}, the GPUs that torch finds; "
            f"got {config.devices}"
        )
    if device == "cpu" and config.precision == "16-mixed":
        raise UserError("--precision 16-mixed needs a GPU; on the CPU use bf16-mixed or 32-true")
    check_backend(config.backend, device)
    return device


@contextlib.contextmanager
def cpu_threads(threads: int | None, processes: int = 1) -> Iterator[None]:
    """While entered, computes with ``threads`` CPU threads, also in processes started meanwhile."""
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if processes > 1:
        # Lightning sets its own number in every process unless it finds this.
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_first_process() -> bool:
    """Whether this is the only process of a run, or the one that speaks and writes for all."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def quiet_lightning() -> None:
    """Lightning's hints are about its API, which whoever runs the command does not write."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
