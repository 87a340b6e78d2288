"""Seeds: where the 64 bits that make a call's noise come from."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

SEED_LIMIT = 1 << 64


class _Drawn(threading.local):
    """Where a thread draws its seeds: making a tensor each time costs more than drawing."""

    def __init__(self) -> None:
        with torch.inference_mode(False):
            self.seed = torch.empty((), dtype=torch.int64, device="cpu")


_drawn = _Drawn()


def draw(device: torch.device, generator: torch.Generator | None) -> int | Tensor:
    """A fresh seed from ``generator`` or the device's default generator.

    On the CPU a Python int in [0, 2**64); elsewhere a 0-dim int64 tensor on the device, so that
    nothing waits for it and a captured CUDA graph draws a new one at each replay.
    """
    if device.type == "cpu":
        _drawn.seed.random_(-(1 << 63), None, generator=generator)
        return int(_drawn.seed.item()) % SEED_LIMIT
    seed = torch.empty((), dtype=torch.int64, device=device)
    return seed.random_(-(1 << 63), None, generator=generator)


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
