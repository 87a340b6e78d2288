"""What happens between Lightning's steps: the progress bar, the metrics and the checkpoints."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from tqdm import tqdm

from vae_fast.training.metrics import append_metrics, start_metrics
from vae_fast.training.module import Terms, VAEModule
from vae_fast.training.signals import StopSignals

GO_ON, SAVE, STOP = range(3)


class StopTraining(Exception):
    """Leaves Lightning's loop between two batches."""


def terms_text(terms: Terms) -> str:
    return f"ELBO {terms.elbo:.2f} = log-likelihood {terms.log_likelihood:.2f} - KL {terms.kl:.2f}"


class Recorder(Checkpoint):
    """Writes a row of metrics an epoch, and checkpoints: now and then, at a signal, at the end.

    Args:
        checkpoint: the file to keep.
        metrics: the table to add to.
        signals: who tells that the run shall end early.
    """

    # How long after a checkpoint the next one is due, or twenty times what it took to write.
    save_seconds = 30.0

    def __init__(self, checkpoint: Path, metrics: Path, signals: StopSignals) -> None:
        self.checkpoint, self.metrics, self.signals = checkpoint, metrics, signals
        self.stopped_by = 0  # the signal that ended the run, on every process
        self._due = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning has put its own SIGTERM handler in place by now. That one speaks to the other
        # processes from inside the handler, which can wait for ever.
        self.signals.install()
        self._due = time.monotonic() + self.save_seconds
        if trainer.is_global_zero:
            start_metrics(self.metrics, trainer.global_step)

    def _wish(self, trainer: Trainer) -> int:
        """GO_ON, SAVE or STOP, the same on every process: the most that any of them wishes."""
        wish = STOP if self.signals.received else GO_ON
        if wish == GO_ON and trainer.is_global_zero and time.monotonic() >= self._due:
            wish = SAVE
        # The number of the signal goes along, so that every process ends for the same reason.
        code = torch.tensor(wish * 256 + self.signals.received, device=trainer.strategy.root_device)
        code = trainer.strategy.reduce(code, reduce_op="max")
        wish, received = divmod(int(code), 256)
        if wish == STOP:
            self.stopped_by = received
        return wish

    def _save(self, trainer: Trainer) -> None:
        start = time.monotonic()
        trainer.save_checkpoint(self.checkpoint)
        now = time.monotonic()
        self._due = now + max(self.save_seconds, 20 * (now - start))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:
            return  # validation comes next, and then the end of the epoch, which decides
        wish = self._wish(trainer)
        if wish != GO_ON:
            self._save(trainer)
        if wish == STOP:
            # Not trainer.should_stop, which would validate first and count the epoch as done.
            raise StopTraining

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, VAEModule)
        if trainer.is_global_zero:
            row: dict[str, float] = {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            }
            for name, terms in (
                ("train", pl_module.train_terms),
                ("held_out", pl_module.held_out_terms),
            ):
                row |= {f"{name}_{term}": value for term, value in terms._asdict().items()}
            append_metrics(self.metrics, row)
        wish = self._wish(trainer)
        if wish != GO_ON or trainer.current_epoch + 1 == trainer.max_epochs:
            self._save(trainer)
        trainer.should_stop = wish == STOP


class RunProgress(ProgressBar):
    """One bar over the whole run; where stderr is no terminal, a line at each tenth of it."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._held_out, self._wide = "", False
        self._next = 0.0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._enabled and sys.stderr.isatty():
            assert trainer.max_epochs is not None
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
            self._wide = columns >= 110
            self._bar = tqdm(
                total=trainer.max_epochs * int(trainer.num_training_batches),
                initial=trainer.global_step,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining}{postfix}",
                # A terminal that does not know its width would get an empty bar.
                dynamic_ncols=columns > 0,
                ncols=None if columns > 0 else 80,
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is None:
            return
        self._bar.update(1)
        now = time.monotonic()
        if now >= self._next or self._bar.n == self._bar.total:
            # Reading the metrics waits for the device, so it is done a few times a second only.
            self._next = now + 0.2
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._bar.set_description_str(epoch, refresh=False)
            shown = trainer.progress_bar_metrics
            log_likelihood, kl = float(shown["log_likelihood"]), float(shown["kl"])
            terms = Terms(log_likelihood - kl, log_likelihood, kl)
            self._bar.set_postfix_str(terms_text(terms) + (self._held_out if self._wide else ""))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, VAEModule) and trainer.max_epochs is not None
        self._held_out = f", held-out ELBO {pl_module.held_out_terms.elbo:.2f} nats"
        done, total = trainer.current_epoch + 1, trainer.max_epochs
        if self._enabled and self._bar is None and done * 10 // total > (done - 1) * 10 // total:
            text = f"epoch {done}/{total}  {terms_text(pl_module.train_terms)}{self._held_out}"
            print(text, file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close()
