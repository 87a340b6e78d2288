"""Where and in what the work is done: the device, its caches, and how to wait for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

LAST_LEVEL_CACHE = 32 * 2**20  # bytes, where the machine does not tell
OWN_CACHES = 2 * 2**20  # bytes, of two cores together


class Setting(NamedTuple):
    """What a measurement is taken with, besides the work and its size."""

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    backend: str | None = None  # of ours; None: the best that runs on the device

    @property
    def kind(self) -> str:
        return torch.device(self.device).type

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def module(device: str) -> Any:
    """``torch.cpu``, ``torch.cuda``, ``torch.xpu``, ..."""
    return torch.get_device_module(torch.device(device))


def synchronizer(device: str) -> Callable[[], None]:
    """What waits until the device has done all that it was given; on the CPU it does nothing."""
    return module(device).synchronize


def last_level_cache(device: str) -> int:
    """Bytes of the largest cache."""
    if torch.device(device).type == "cpu":
        sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        kilobytes = [int(path.read_text().strip().removesuffix("K")) for path in sizes]
        return max(kilobytes, default=LAST_LEVEL_CACHE // 1024) * 1024
    properties = module(device).get_device_properties(device)
    return getattr(properties, "L2_cache_size", LAST_LEVEL_CACHE)


def copies_of(bytes_each: int, device: str) -> int:
    """How many sets of inputs must rotate so that none is in the last-level cache when it is read.

    What fits the cores' own caches comes from there in a model as well, and two sets will do.
    """
    if bytes_each < OWN_CACHES:
        return 2
    return max(2, 1 + 2 * last_level_cache(device) // bytes_each)
