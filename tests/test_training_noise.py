"""Noise of a run: a pure function of its seed and the step, however many processes share it."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("lightning")

import torch
from command import TINY_ARGUMENTS, start

import vae_fast.functional as F
from vae_fast.cli import main
from vae_fast.training.seeds import MASK, STEP, _mix, derive

STEPS = 11  # an epoch
EPOCHS = 2
LATENT = 3

# The command itself, with a look at every forward pass of training.
WATCHED = """
import functools, os, sys
from pathlib import Path
import torch
from lightning.pytorch import Callback
from vae_fast.training import run

class Watch(Callback):
    def on_train_start(self, trainer, module):
        self.steps = []
        module.model.register_forward_hook(self.look, with_kwargs=True)

    def look(self, model, arguments, options, out):
        if model.training:
            deviation = torch.exp(out.posterior_logvar / 2)
            self.steps.append((arguments[0], (out.z - out.posterior_mean) / deviation, deviation))

    def on_train_end(self, trainer, module):
        name = f"{trainer.global_rank}-of-{trainer.world_size}.pt"
        torch.save(self.steps, Path(os.environ["WATCHED"]) / name)

run.train = functools.partial(run.train, callbacks=[Watch()])
from vae_fast.cli import main
status = main()
assert not torch.distributed.is_initialized(), "the process group is still there"
sys.exit(status)
"""


def watched(folder: Path, processes: int) -> list[list[tuple[torch.Tensor, ...]]]:
    """What each process saw at each step: rows, noise, posterior deviation."""
    script = folder / "watched.py"
    script.write_text(WATCHED)
    arguments = ["train", *TINY_ARGUMENTS, f"--epochs={EPOCHS}", "--seed=5", "--accelerator=cpu"]
    process = start(
        [
            *(sys.executable, str(script), *arguments),
            *(f"--devices={processes}", f"--out={folder / str(processes)}"),
        ],
        WATCHED=str(folder),
    )
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert output.count("held-out rows") == 1, "one process reports"
    return [
        torch.load(folder / f"{rank}-of-{processes}.pt", weights_only=True)
        for rank in range(processes)
    ]


def test_two_processes_have_the_noise_of_one(tmp_path: Path) -> None:
    (alone,) = watched(tmp_path, 1)
    parts = watched(tmp_path, 2)
    assert len(alone) == len(parts[0]) == len(parts[1]) == EPOCHS * STEPS
    for step in range(EPOCHS * STEPS):
        rows, eps, deviation = alone[step]
        both_rows, both_eps, _ = (
            torch.cat(pair) for pair in zip(*(p[step] for p in parts), strict=True)
        )
        # Each epoch has an order of its own, and each process its part of it.
        assert torch.equal(rows, both_rows)
        expected = F.noise((128, LATENT), seed=derive(5, STEP, step), dtype=torch.float64)
        # Taken back out of z: a rounding of z, then of a quotient.
        tolerance = 4e-6 + 2e-6 / deviation.min().item()
        assert torch.allclose(eps.double(), expected, rtol=0, atol=tolerance)
        assert torch.allclose(both_eps.double(), expected, rtol=0, atol=tolerance)
    # Gradients of the whole batch, averaged in another order.
    results = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("1", "2")]
    assert results[0]["elbo"] == pytest.approx(results[1]["elbo"], abs=1e-2)
    tables = [(tmp_path / n / "metrics.csv").read_text().splitlines()[1] for n in ("1", "2")]
    values = [[float(value) for value in table.split(",")] for table in tables]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_seeds_differ_between_uses_steps_and_runs() -> None:
    seeds = {derive(run, use, step) for run in range(5) for use in range(6) for step in range(200)}
    assert len(seeds) == 5 * 6 * 200
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert derive(2**64 - 1, 0) != derive(0, 0)


def test_splitmix_is_the_published_one() -> None:
    # The first outputs of SplitMix64 from state 1234567.
    state, step = 1234567, 0x9E3779B97F4A7C15
    outputs = [_mix((state + index * step) & MASK) for index in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_interrupting_two_processes_saves_what_one_resumes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "vae_fast.cli", "train", *TINY_ARGUMENTS]
    process = start(
        [*command, "--epochs=100000", "--devices=2", "--accelerator=cpu", f"--out={out}"]
    )
    table = out / "metrics.csv"
    assert process.stderr is not None
    while not table.exists() or table.read_text().count("\n") < 3:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert errors.count("\n") == 1 and "--resume" in errors
    epochs = table.read_text().count("\n") + 1
    assert main(["train", "--resume", f"--out={out}", f"--epochs={epochs}", "--devices=1"]) == 0
    rows = table.read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, epochs + 1))
    assert [int(row.split(",")[1]) for row in rows] == [STEPS * n for n in range(1, epochs + 1)]
