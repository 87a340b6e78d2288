"""Some mutants of every file that the command reads; ``fuzz_readers.py`` makes any number."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("lightning")
pytest.importorskip("resource")

import fuzz_readers
import numpy as np
import torch

from vae_fast.training.errors import UserError

MUTANTS = 400
FEWER = {"state": 200, "checkpoint": 200}  # which take longest: a training follows some


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    fuzz_readers.example_folder(folder)
    yield folder
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", fuzz_readers.READERS)
def test_a_file_is_read_or_refused(folder: Path, name: str) -> None:
    result = fuzz_readers.fuzz(folder, name, FEWER.get(name, MUTANTS), seed=1)
    assert not result.failures, result.failures[0][2]
    # Else the mutants are of one kind, and say nothing about the reader.
    assert result.accepted >= 3 and result.refused >= 100


def explode() -> None:
    raise RecursionError


def spin() -> None:
    while True:
        pass


def fill() -> None:
    try:
        np.empty(2 * fuzz_readers.ROOM, np.uint8)
    except MemoryError as error:
        raise UserError("refused") from error


def babble() -> None:
    os.write(2, b"Not enough data for scanline 0.")


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (explode, "RecursionError"),
        (spin, "more than"),
        (fill, "too much memory"),
        (babble, "wrote 31 bytes to stderr"),
    ],
)
def test_a_fault_of_a_reader_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault, text: str
) -> None:
    contents = itertools.cycle((b"good", b"bad"))

    def make(chance: random.Random) -> bytes:
        return next(contents)

    def read(path: Path) -> None:
        if path.read_bytes() == b"bad":
            fault()

    reader = fuzz_readers.Reader("faulty", "file", make, read)
    monkeypatch.setitem(fuzz_readers.READERS, "faulty", lambda folder: reader)
    monkeypatch.setattr(fuzz_readers, "SECONDS", 0.1)
    result = fuzz_readers.fuzz(tmp_path, "faulty", 30, seed=0, most_failures=2)
    assert len(result.failures) == 2 and result.accepted == 2
    for _, content, wrong in result.failures:
        assert content == b"bad" and text in wrong
