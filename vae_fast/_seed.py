"""Seeds: where the 64 bits that make a call's noise come from."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vae_fast._storage import require_memory

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


# By how much ``random_`` moves a CUDA generator's offset for a tensor of one element.
_OFFSETS_A_DRAW = 4
# Held between the reading of an offset and its writing. It does not keep out draws of torch's own
# from the same generator in another thread, which would be set back by as much as they drew.
_cuda_generators = threading.Lock()


@cache
def _compiled() -> Any:
    """The compiled module, or None: loaded where a tensor first asks for it."""
    from vae_fast._backends import _native

    return _native.module


def draw(device: torch.device, generator: torch.Generator | None) -> int | Tensor:
    """A fresh seed from ``generator`` or the device's default generator.

    A Python int in [0, 2**64) where the generator's state is on the CPU: CUDA's is, with the
    compiled module to compute what the device would. Else, and where a CUDA graph is captured,
    which is to draw a new one at each replay, a 0-dim int64 tensor. Nothing waits for the device.
    """
    if device == _CPU:
        _drawn.tensor.random_(_LOWEST, None, generator=generator)
        return _drawn.bits[0]
    if device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        compiled = _compiled()
        if compiled is not None:
            source = torch.cuda.default_generators[device.index] if generator is None else generator
            with _cuda_generators:
                offset = source.get_offset()
                source.set_offset(offset + _OFFSETS_A_DRAW)
            return compiled.cuda_draw(source.initial_seed(), offset)
    return draw_tensor(device, generator)


def draw_tensor(device: torch.device, generator: torch.Generator | None) -> Tensor:
    """The seed that ``draw`` would return, as a 0-dim int64 tensor, drawn on the device."""
    seed = torch.empty((), dtype=torch.int64, device=device)
    return seed.random_(_LOWEST, None, generator=generator)


def draw_traced(device: torch.device, generator: torch.Generator | None) -> Tensor:
    """``draw_tensor`` without writing in place, which vmap could not map over.

    ONNX draws numbers as float32, which have 24 bits: there it is four draws of 16, and another
    seed than torch's generator would give.
    """
    if torch.onnx.is_in_onnx_export():
        return _joined(torch.randint(0, 1 << 16, (4,), dtype=torch.int64, device=device))
    # Not generator=None, which a graph would hold as an argument that exporters do not know.
    source: dict[str, Any] = {} if generator is None else {"generator": generator}
    drawn = torch.randint(_LOWEST, -_LOWEST - 1, (), dtype=torch.int64, device=device, **source)
    return drawn ^ _LOWEST  # randint counts the generator's 64 bits from the lowest int up


def _joined(parts: Tensor) -> Tensor:  # [4], of 16 bits each
    a, b, c, d = parts.unbind()
    return a << 48 | b << 32 | c << 16 | d


def to_tensor(seed: int | Tensor, device: torch.device) -> Tensor:
    """``seed`` as a 0-dim int64 tensor with the same 64 bits."""
    if isinstance(seed, Tensor):
        return seed
    return torch.full(
        (), seed - SEED_LIMIT if seed >= SEED_LIMIT // 2 else seed, dtype=torch.int64, device=device
    )


def to_int(seed: int | Tensor) -> int:
    """``seed`` as an int in [0, 2**64). Reads a tensor's value, so a GPU tensor is waited for."""
    if isinstance(seed, int):
        return seed
    require_memory(seed)
    return int(seed) % SEED_LIMIT


def kept(seed: int | Tensor | None) -> int | Tensor | None:
    """``seed`` as a backward pass needs it: with today's bits, whatever is written to it later."""
    if not isinstance(seed, Tensor):
        return seed
    return seed.clone() if seed.device.type != "cpu" else to_int(seed)


def kept_tensor(
    seed: int | Tensor | None, device: torch.device, drawn: bool = False
) -> Tensor | None:
    """``kept`` where seeds are tensors. One that was drawn for this call nobody writes to."""
    if isinstance(seed, Tensor):
        require_memory(seed)
        return seed if drawn else seed.clone()
    return None if seed is None else to_tensor(seed, device)
