"""`vae-fast train`: a run from its options to its report."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vae_fast.training.callbacks import Recorder, RunProgress, StopTraining
from vae_fast.training.checkpoint import SafetensorsIO
from vae_fast.training.config import CHANGEABLE, RunConfig, option
from vae_fast.training.data import Data, Split, load, resolve, split
from vae_fast.training.errors import Interrupted, UserError
from vae_fast.training.folder import RunFolder
from vae_fast.training.loader import RunData
from vae_fast.training.lock import RunLock
from vae_fast.training.machine import (
    check_machine,
    cpu_threads,
    is_first_process,
    quiet_lightning,
)
from vae_fast.training.module import VAEModule, build_model
from vae_fast.training.reading import is_whole
from vae_fast.training.report import Report, write_report
from vae_fast.training.signals import StopSignals
from vae_fast.training.state import check_run_state, model_weights
from vae_fast.training.storage import read_checkpoint


@dataclass(frozen=True)
class Plan:
    """A run whose options, data and machine have been found good."""

    config: RunConfig
    folder: RunFolder
    device: str
    data: Data
    split: Split
    batch_size: int
    state: Path | None  # the checkpoint to go on from


def _config(folder: RunFolder, options: Mapping[str, Any], resume: bool) -> RunConfig:
    """The run's config: of the options alone, or its own with the changes that are allowed."""
    if "data" in options:
        options = {**options, "data": resolve(options["data"])}
    if not resume:
        return RunConfig(**options)
    config, _ = folder.read_config()
    for name, value in options.items():
        own = getattr(config, name)
        if name not in CHANGEABLE and value != own:
            raise UserError(f"{option(name)} cannot change at --resume: it is {own}; got {value}")
    return replace(config, **{name: options[name] for name in options if name in CHANGEABLE})


def _check_state(folder: RunFolder, config: RunConfig, shape: Sequence[int]) -> None:
    """UserError where the run's checkpoint has other weights, or more epochs than the config."""
    checkpoint = read_checkpoint(folder.checkpoint)
    with torch.device("meta"):
        model_weights(folder.checkpoint, checkpoint, build_model(config, shape))
    done: Any = checkpoint.get("loops")
    for name in ("fit_loop", "epoch_progress", "current", "ready"):
        done = done.get(name) if isinstance(done, dict) else None
    if not is_whole(done, 0, 2**62):
        raise UserError(f"{folder.checkpoint} does not say how many epochs it has behind it")
    if done > config.epochs:
        raise UserError(
            f"--epochs must be at least {done}, where the run has got to; got {config.epochs}"
        )


def _plan(folder: RunFolder, options: Mapping[str, Any], resume: bool, overwrite: bool) -> Plan:
    """Check everything before anything is written."""
    config = _config(folder, options, resume)
    # Of several processes the first has made the folder by the time that the others look.
    if not resume and is_first_process():
        folder.check_free(overwrite)
    device = check_machine(config)
    data = load(config.data)
    if resume and folder.read_config()[1] != data.describe():
        raise UserError(f"{config.data} does not hold the rows that {folder.path} was trained on")
    parts = split(data, config.validation_fraction, config.seed)
    # All rows in one batch where there are fewer than a batch.
    batch_size = min(config.batch_size, len(parts.train) // config.devices * config.devices)
    if batch_size == 0:
        raise UserError(
            f"--devices must be at most {len(parts.train)}, the rows to train on; "
            f"got {config.devices}"
        )
    state = folder.checkpoint if resume and folder.checkpoint.exists() else None
    if state is not None:
        _check_state(folder, config, data.event_shape)
    return Plan(config, folder, device, data, parts, batch_size, state)


def _echo(plan: Plan) -> None:
    shape = "x".join(map(str, plan.data.event_shape))
    print(
        f"{plan.data.name}: {len(plan.split.train)} rows of {shape} to train on, "
        f"{len(plan.split.held_out)} held out\nrun folder: {plan.folder.path}"
    )
    shown = {**plan.config.to_json(), "batch_size": plan.batch_size}
    for name, value in shown.items():
        if isinstance(value, list):
            value = ",".join(map(str, value))
        print(f"  {name:<20} {'default' if value is None else value}")
    print(flush=True)


def _in_process_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _fit(plan: Plan, module: VAEModule, callbacks: Iterable[Callback]) -> None:
    """Train; raises Interrupted, in every process, where a signal came."""
    config, folder = plan.config, plan.folder
    again = f"vae-fast train --resume --out {folder.path}"
    was_in_one = _in_process_group()
    state: dict[str, Any] = {}  # what to go on from
    with StopSignals() as signals:
        recorder = Recorder(folder.checkpoint, folder.metrics, signals)
        trainer = Trainer(
            accelerator=plan.device,
            devices=config.devices,
            strategy="ddp" if config.devices > 1 else "auto",
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=config.epochs,
            callbacks=[*callbacks, RunProgress(), recorder],
            plugins=[SafetensorsIO(state)],
            default_root_dir=folder.path,
            logger=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        if plan.state is not None:
            state.update(read_checkpoint(plan.state))
            batches = len(plan.split.train) // plan.batch_size
            check_run_state(plan.state, state, module, trainer, batches)
        try:
            trainer.fit(
                module,
                datamodule=RunData(plan.split, plan.batch_size, config.seed),
                ckpt_path=plan.state,
            )
        except StopTraining:
            pass
        except MisconfigurationException as error:
            raise UserError(str(error)) from error
        except SystemExit as error:  # what Lightning makes of a second Ctrl-C
            message = f"interrupted at once; go on from the last checkpoint with: {again}"
            raise Interrupted(message, signal.SIGINT) from error
        except BaseException:
            # The other processes would wait for this one.
            if kill := getattr(trainer.strategy.launcher, "kill", None):
                kill(signal.SIGKILL)
            raise
    if _in_process_group() and not was_in_one:
        # Else its threads run on while the process ends, which C++ can take for an error.
        torch.distributed.destroy_process_group()
    if recorder.stopped_by:
        message = f"interrupted; the state is saved; go on with: {again}"
        raise Interrupted(message, recorder.stopped_by)


def train(
    options: Mapping[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Iterable[Callback] = (),
) -> Report | None:
    """Make a run in the folder ``out`` and report; None in all processes but the first.

    Args:
        options: fields of ``RunConfig`` that are not to have their defaults, or, with
            ``resume``, that are to change.
        out: the run's folder.
        resume: go on from the run's checkpoint, or from the start where there is none yet.
        overwrite: replace a run that is there.
        callbacks: Lightning's, besides our own.

    Raises:
        UserError: something that the user can put right; another training has the folder, say.
        BackendUnavailableError: the asked-for backend cannot run here.
        Interrupted: SIGINT or SIGTERM, after the state was saved.
    """
    quiet_lightning()
    folder = RunFolder(Path(out))
    # The first process writes for all of a run's, and so has the lock for all. What is read of the
    # folder must not change until it is written, so that the lock comes before the checks.
    lock = RunLock(folder.path, make=not resume) if is_first_process() else contextlib.nullcontext()
    with lock:
        return _train(folder, options, resume, overwrite, callbacks)


def _train(
    folder: RunFolder,
    options: Mapping[str, Any],
    resume: bool,
    overwrite: bool,
    callbacks: Iterable[Callback],
) -> Report | None:
    """``train``, in a folder that no other training writes to."""
    plan = _plan(folder, options, resume, overwrite)
    config, data = plan.config, plan.data
    with cpu_threads(config.threads, config.devices):
        total_steps = config.epochs * (len(plan.split.train) // plan.batch_size)
        module = VAEModule(build_model(config, data.event_shape), config, total_steps)
        described = data.describe()
        if is_first_process():
            if resume:
                folder.write_config(config, described)
            else:
                folder.start(config, described)
            _echo(plan)
        try:
            _fit(plan, module, callbacks)
        except Interrupted:
            if is_first_process():
                raise
            # Lightning kills the first process where another's exit status is not 0.
            return None
        if not is_first_process():
            return None
        model = module.model.to(plan.device)
        return write_report(folder, model, config, plan.split, described.limits)
