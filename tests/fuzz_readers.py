"""Damaged and made-up files for every reader of the command: read, or refused in one line.

    python tests/fuzz_readers.py --mutants 10000 --seed 0 [--reader config]

Each reader gets good files with bits flipped, parts cut, moved, doubled or joined, and values
replaced. It must return, or raise UserError with a text of one line, within a time and a memory.
Anything else is a failure: the file is kept, and the status is 1. The readers are called as the
command calls them, in this process.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import torch
from fuzz_cases import READERS, Reader, example_folder

from vae_fast.cli import one_line
from vae_fast.training.errors import UserError

SECONDS = 2.0  # of processor time, for a mutant
ROOM = 1 << 30  # bytes that a reader may take, beyond what the process has


class TookTooLong(BaseException):
    """A mutant took more than its seconds."""


@contextmanager
def limits(heard: IO[bytes]) -> Iterator[None]:
    """Time of a mutant, by a signal, and memory, by the operating system.

    What is written to stderr comes to the file ``heard``, C code's too.
    """

    def late(number: int, frame: object) -> None:
        raise TookTooLong

    before = resource.getrlimit(resource.RLIMIT_AS)
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(heard.fileno(), 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    handler = signal.signal(signal.SIGVTALRM, late)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
        os.dup2(stderr, 2)
        os.close(stderr)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@dataclass
class Result:
    """What became of a reader's mutants."""

    accepted: int = 0
    refused: int = 0
    failures: list[tuple[int, bytes, str]] = field(default_factory=list)


def attempt(reader: Reader, path: Path, content: bytes) -> str | None:
    """ "" where a mutant is accepted, None where it is refused, else what is wrong."""
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        reader.read(path)
        return ""
    except UserError as error:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        text = one_line(error)
        if not text or "\n" in text or not text.isprintable():
            return f"not one line: {text!r}"
        if any(isinstance(each, MemoryError) for each in causes(error)):
            return f"too much memory: {text}"
        return None
    except TookTooLong:
        return f"more than {SECONDS} s"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def fuzz(folder: Path, name: str, mutants: int, seed: int, most_failures: int = 5) -> Result:
    """Give ``mutants`` files to the reader ``name``; the same ones for the same seed."""
    reader = READERS[name](folder)
    path = folder / reader.file
    path.parent.mkdir(exist_ok=True)
    good = path.read_bytes() if path.exists() else None
    result = Result()
    silence = 0
    with tempfile.TemporaryFile() as heard, warnings.catch_warnings(), limits(heard):
        warnings.simplefilter("ignore")
        for number in range(mutants):
            # Of its own number alone: one mutant can be made again without those before.
            content = reader.make(random.Random(f"{seed} {name} {number}"))
            wrong = attempt(reader, path, content)
            if (said := os.fstat(heard.fileno()).st_size) > silence:
                wrong = f"wrote {said - silence} bytes to stderr besides: {wrong}"
                silence = said
            if wrong is None:
                result.refused += 1
            elif wrong == "":
                result.accepted += 1
            else:
                result.failures.append((number, content, wrong))
                if len(result.failures) == most_failures:
                    break
    if good is None:
        path.unlink()
    else:
        path.write_bytes(good)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=READERS, action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    status = 0
    try:
        example_folder(folder)
        for name in arguments.reader or READERS:
            result = fuzz(folder, name, arguments.mutants, arguments.seed)
            print(
                f"{name:<10} {result.accepted} accepted, {result.refused} refused, "
                f"{len(result.failures)} failed",
                flush=True,
            )
            for number, content, wrong in result.failures:
                kept = Path(f"mutant-{name}-{arguments.seed}-{number}")
                kept.write_bytes(content)
                print(f"mutant {number}, kept as {kept}:\n{wrong}", flush=True)
                status = 1
    finally:
        shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
