"""Compiles the peers' code in several processes before anything is timed.

What they compile lies in the compiler's cache afterwards. A GPU that is there for minutes would
else be left waiting for one core.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch

from bench import machine, peers
from bench.device import DTYPES, Setting
from bench.ops import OPS, Size
from bench.training_step import TrainingStep
from bench.workload import Workload


class Piece(NamedTuple):
    """Work of one op, or of a model, that is to be timed."""

    name: str
    size: Any  # of the op, or the model's batch size
    dtype: str


Seconds = dict[Piece, dict[str, float]]  # that each peer took to compile


def _alone() -> None:
    """Each process has a core: the compiler, not imported yet, is to start no others."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"


def _compile(piece: Piece, device: str, names: tuple[str, ...]) -> dict[str, float]:
    """Without our own code: what it compiles is little."""
    setting = Setting(device, DTYPES[piece.dtype])
    try:
        if piece.name in OPS:
            size = Size(*piece.size)
            return Workload(OPS[piece.name], size, setting, names, check=False).compile_seconds
        return TrainingStep(piece.name, piece.size, setting, names, check=False).compile_seconds
    except torch.OutOfMemoryError:  # too many at once: it is compiled when its turn comes
        return {}


def compile_all(pieces: Iterable[Piece], device: str, names: Iterable[str] | None) -> Seconds:
    """The pieces, as many at once as there are cores; ``names`` of the peers, None for all."""
    wanted = [peer.name for peer in peers.PEERS if peer.compiles]
    chosen = tuple(name for name in wanted if names is None or name in names)
    pieces = list(dict.fromkeys(pieces))
    workers = max(1, min(machine.cores() - 2, len(pieces)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_alone) as pool:
        started = {
            piece: pool.submit(_compile, piece._replace(size=_plain(piece.size)), device, chosen)
            for piece in pieces
        }
        return {piece: each.result() for piece, each in started.items()}


def _plain(size: Any) -> Any:
    return tuple(size) if isinstance(size, Size) else size
