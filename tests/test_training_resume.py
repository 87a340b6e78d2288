"""A run that is cut short and resumed ends as one that is not: the same bits, the same table."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("lightning")

import lightning.pytorch
import torch
from command import TINY, same

from vae_fast.training import run
from vae_fast.training.callbacks import Recorder
from vae_fast.training.errors import Interrupted, UserError
from vae_fast.training.run import train
from vae_fast.training.storage import read_checkpoint, write_checkpoint

BATCHES = 11  # 1,438 rows to train on, 128 a batch


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "write_report", lambda *arguments: None)


class At(lightning.pytorch.Callback):
    """Does something at the start of one batch; counts the batches that were trained."""

    def __init__(self, epoch: int, batch: int, action: Any) -> None:
        self.place, self.action = (epoch, batch), action
        self.seen: list[tuple[int, int]] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen.append((trainer.current_epoch, batch_idx))
        if self.seen[-1] == self.place:
            self.action()


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def crash() -> None:
    raise RuntimeError("the machine went down")


def outcome(folder: Path) -> tuple[dict[str, Any], str]:
    return read_checkpoint(folder / "checkpoint.safetensors"), (folder / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_report", lambda *arguments: None)
        train(TINY, folder)
    return outcome(folder)


def check(folder: Path, expected: tuple[dict[str, Any], str]) -> None:
    checkpoint, metrics = outcome(folder)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert same(checkpoint[part], expected[0][part]), part
    assert metrics == expected[1]


def test_a_run_from_before_a_shared_variance_had_a_dimension(tmp_path: Path) -> None:
    options = {**TINY, "decoder_variance": "shared"}
    train(options, tmp_path / "whole")
    folder = tmp_path / "cut"
    with pytest.raises(Interrupted):
        train(options, folder, callbacks=[At(1, 5, interrupt)])
    path = folder / "checkpoint.safetensors"

    def older(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: older(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(older(item) for item in value)
        scalar = isinstance(value, torch.Tensor) and value.shape == (1,)
        return value.reshape(()) if scalar else value

    checkpoint = older(read_checkpoint(path))
    assert checkpoint["state_dict"]["model.decoder_logvar"].dim() == 0
    write_checkpoint(path, checkpoint)
    train({}, folder, resume=True)
    check(folder, outcome(tmp_path / "whole"))


PLACES = [(0, 0), (1, 0), (1, 5), (1, BATCHES - 1), (2, BATCHES - 2), (2, BATCHES - 1)]


@pytest.mark.parametrize(("epoch", "batch"), PLACES)
def test_interrupted_and_resumed(
    tmp_path: Path, uninterrupted: tuple[dict[str, Any], str], epoch: int, batch: int
) -> None:
    folder = tmp_path / "run"
    first, second = At(epoch, batch, interrupt), At(-1, -1, None)
    with pytest.raises(Interrupted, match=f"train --resume --out {folder}") as caught:
        train(TINY, folder, callbacks=[first])
    assert caught.value.signal == signal.SIGINT
    assert first.seen[-1] == (epoch, batch)
    train({}, folder, resume=True, callbacks=[second])
    # No batch twice and none left out.
    assert first.seen + second.seen == [(e, b) for e in range(3) for b in range(BATCHES)]
    check(folder, uninterrupted)


@pytest.mark.parametrize(
    "options",
    [
        {"beta_schedule": "cyclical", "beta_steps": 7, "capacity": 4.0, "capacity_steps": 25},
        {"estimator": "score_function", "baseline": "running_mean", "beta_schedule": "linear",
         "beta_steps": 30},
        {"decoder_variance": "optimal", "prior": "learned"},
        {"decoder_variance": "per_feature", "objective": "iwae", "num_samples": 3},
    ],
    ids=str,
)  # fmt: skip
def test_schedules_and_running_means_go_on(tmp_path: Path, options: dict[str, Any]) -> None:
    train({**TINY, **options}, tmp_path / "whole")
    folder = tmp_path / "cut"
    with pytest.raises(Interrupted):
        train({**TINY, **options}, folder, callbacks=[At(1, 5, interrupt)])
    train({}, folder, resume=True)
    check(folder, outcome(tmp_path / "whole"))


def test_schedules_follow_the_optimiser_s_steps(tmp_path: Path) -> None:
    class Watch(lightning.pytorch.Callback):
        seen: ClassVar[list[float]] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.seen.append(pl_module.model.beta)

    train({**TINY, "beta": 2.0, "beta_schedule": "linear", "beta_steps": 20}, tmp_path,
          callbacks=[Watch()])  # fmt: skip
    assert Watch.seen == [2.0 * min(step / 20, 1.0) for step in range(3 * BATCHES)]


def test_interrupted_again_and_again(
    tmp_path: Path, uninterrupted: tuple[dict[str, Any], str]
) -> None:
    for index, place in enumerate([(0, 3), (0, 4), (1, 2), (2, 0)]):
        options = {} if index else TINY
        with pytest.raises(Interrupted):
            train(options, tmp_path, resume=index > 0, callbacks=[At(*place, interrupt)])
    train({}, tmp_path, resume=True)
    check(tmp_path, uninterrupted)


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["saved each batch", "never saved"])
def test_crashed_and_resumed(
    tmp_path: Path,
    uninterrupted: tuple[dict[str, Any], str],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    monkeypatch.setattr(Recorder, "save_seconds", seconds)
    first, second = At(1, 6, crash), At(-1, -1, None)
    with pytest.raises(RuntimeError, match="went down"):
        train(TINY, tmp_path, callbacks=[first])
    with open(tmp_path / "metrics.csv", "a") as table:
        table.write("7,1000,0")  # as if cut off
    train({}, tmp_path, resume=True, callbacks=[second])
    check(tmp_path, uninterrupted)
    repeated = set(first.seen) & set(second.seen)
    # What was not saved in time is done again. A save takes a while, and the next one waits
    # twenty times as long, so that not every batch is saved even if each may be.
    assert (1, 6) in repeated and (len(repeated) == BATCHES + 7) == (seconds > 0)


def test_terminated_and_resumed(tmp_path: Path, uninterrupted: tuple[dict[str, Any], str]) -> None:
    def terminate() -> None:
        interrupt(signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        train(TINY, tmp_path, callbacks=[At(1, 5, terminate)])
    assert caught.value.signal == signal.SIGTERM
    train({}, tmp_path, resume=True)
    check(tmp_path, uninterrupted)


def test_handlers_are_those_of_before(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted):
        train(TINY, tmp_path, callbacks=[At(0, 0, interrupt)])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    with pytest.raises(Interrupted, match="at once"):
        train(TINY, tmp_path, callbacks=[At(0, 0, twice)])
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_finished_run_goes_on_for_more_epochs_only(tmp_path: Path) -> None:
    train({**TINY, "epochs": 2}, tmp_path)
    nothing, more = At(-1, -1, None), At(-1, -1, None)
    before = outcome(tmp_path)
    train({}, tmp_path, resume=True, callbacks=[nothing])
    assert not nothing.seen and same(list(outcome(tmp_path)), list(before))
    train({"epochs": 3}, tmp_path, resume=True, callbacks=[more])
    assert more.seen == [(2, batch) for batch in range(BATCHES)]
    with pytest.raises(UserError, match=r"--epochs must be at least 3.* got 2"):
        train({"epochs": 2}, tmp_path, resume=True)


def test_what_a_run_computes_cannot_change_at_resume(tmp_path: Path) -> None:
    train({**TINY, "epochs": 1}, tmp_path)
    with pytest.raises(UserError, match="--latent-dim cannot change at --resume: it is 3; got 4"):
        train({"latent_dim": 4}, tmp_path, resume=True)
    train({"latent_dim": 3, "data": "digits"}, tmp_path, resume=True)


def test_divergence_is_said_and_the_last_checkpoint_kept(tmp_path: Path) -> None:
    class Diverge(lightning.pytorch.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                torch.nn.init.constant_(next(pl_module.parameters()), math.nan)

    with pytest.raises(
        UserError, match=r"diverged in epoch 2.* smaller --learning-rate than 0.001"
    ):
        train(TINY, tmp_path, callbacks=[Diverge()])
