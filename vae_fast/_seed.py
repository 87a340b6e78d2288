"""Seeds: where the 64 bits that make a call's noise come from."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

SEED_LIMIT = 1 << 64
_CPU = torch.device("cpu")
_LOWEST = -(1 << 63)  # of int64; with no upper end, random_ draws all 64 bits


class _Drawn(threading.local):
    """Where a thread draws its seeds, as a tensor and as the same memory in unsigned numbers.

    Making a tensor and reading it by ``item`` would each cost more than drawing.
    """

    def __init__(self) -> None:
        with torch.inference_mode(False):
            self.tensor = torch.empty(1, dtype=torch.int64, device="cpu")
        self.bits = self.tensor.numpy().data.cast("B").cast("Q")


_drawn = _Drawn()


def draw(device: torch.device, generator: torch.Generator | None) -> int | Tensor:
    """A fresh seed from ``generator`` or the device's default generator.

    On the CPU a Python int in [0, 2**64); elsewhere a 0-dim int64 tensor on the device, so that
    nothing waits for it and a captured CUDA graph draws a new one at each replay.
    """
    if device == _CPU:
        _drawn.tensor.random_(_LOWEST, None, generator=generator)
        return _drawn.bits[0]
    seed = torch.empty((), dtype=torch.int64, device=device)
    return seed.random_(_LOWEST, None, generator=generator)


def to_tensor(seed: int | Tensor, device: torch.device) -> Tensor:
    """``seed`` as a 0-dim int64 tensor with the same 64 bits."""
    if isinstance(seed, Tensor):
        return seed
    return torch.full(
        (), seed - SEED_LIMIT if seed >= SEED_LIMIT // 2 else seed, dtype=torch.int64, device=device
    )


def to_int(seed: int | Tensor) -> int:
    """``seed`` as an int in [0, 2**64). Reads a tensor's value, so a GPU tensor is waited for."""
    return seed if isinstance(seed, int) else int(seed) % SEED_LIMIT


def kept(seed: int | Tensor | None) -> int | Tensor | None:
    """``seed`` as a backward pass needs it: with today's bits, whatever is written to it later."""
    if not isinstance(seed, Tensor):
        return seed
    return seed.clone() if seed.device.type != "cpu" else to_int(seed)
