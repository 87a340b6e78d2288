"""Nanoseconds a normal on one core, by each instruction set that the kernels are built for."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import vae_fast.functional as F
from bench import harness

SHAPE = (128, 1024)  # half a megabyte of float32: a core's own cache
ROOT = Path(__file__).resolve().parent.parent


def measure(draw: Callable[[], object], seconds: float) -> float:
    """Nanoseconds an element on one thread: the median over blocks of calls."""
    with harness.threads(1):
        comparison = harness.interleave({"it": harness.timed(lambda _: draw())}, seconds)
    return 1e9 * comparison.seconds("it").middle / (SHAPE[0] * SHAPE[1])


def measure_ours(seconds: float) -> float:
    return measure(lambda: F.noise(SHAPE, seed=1, backend="cpu"), seconds)


def measure_all(seconds: float) -> dict[str, float]:
    """By the name of the instruction set, each in a process of its own; and of ``torch.randn``."""
    native = importlib.import_module("vae_fast._C")  # not there in a build without it
    times = {}
    for name in native.build_info()["instruction_sets"].split():
        done = subprocess.run(
            [sys.executable, "-m", "bench.instruction_sets", str(seconds)],
            env=os.environ | {"VAE_FAST_CPU": name},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:  # else this processor does not have it
            times[name] = float(json.loads(done.stdout))
    times["torch.randn"] = measure(lambda: torch.randn(SHAPE), seconds)
    return times


if __name__ == "__main__":
    print(json.dumps(measure_ours(float(sys.argv[1]))))
