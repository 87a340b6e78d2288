"""Running the `vae-fast` command in tests: in this process, or as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from vae_fast.cli import main

# A model and a data set that take a few milliseconds an epoch.
TINY = {"latent_dim": 3, "hidden_dims": (16,), "epochs": 3, "threads": 1}
TINY_ARGUMENTS = ("--latent-dim=3", "--hidden-dims=16", "--epochs=3", "--threads=1")

COMMAND = (sys.executable, "-m", "vae_fast.cli")


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must end with status 2 and one line on stderr; that line's text."""
    capsys.readouterr()
    status = main(arguments)
    text = capsys.readouterr().err
    assert status == 2, text
    assert text.startswith("vae-fast: error: ") and text.count("\n") == 1, text
    return text.removeprefix("vae-fast: error: ")


def start(arguments: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """A process with its output piped."""
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def same(first: Any, second: Any) -> bool:
    """Whether two nested structures hold the same values, tensors bit by bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second) and first.dtype == second.dtype
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        pairs = zip(first, second, strict=True)
        return type(first) is type(second) and all(same(a, b) for a, b in pairs)
    return first == second


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
