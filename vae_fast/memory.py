"""Memory of large results on the CPU, used again once the tensors in it are gone.

The C library gives freed blocks of several megabytes back to the system, and the next call faults
each of their pages in anew. For the loss and its gradients at 1024 x 20000 that takes 33 ms of 44
(AMD EPYC Zen 5, 2 threads). What a training step frees, the next one needs, so such blocks are kept
here, up to a limit. A block is lent to one tensor's storage at a time, and comes back when that is
freed: no view of it, saved tensor, ``.grad`` or NumPy array is left then.

The environment variable VAE_FAST_CPU_CACHE sets the limit in MiB when the package is imported; 0
keeps nothing. A value that is no such number gives a warning, and the default holds.

A forked process begins with an empty cache. What its tensors give back stays in it.
"""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Bytes. What is smaller the C library keeps itself.
SMALLEST = 1 << 20
_MEBIBYTE = 1 << 20
_DEFAULT_LIMIT = 512  # MiB
_MOST_DIGITS = 9  # of the limit: a petabyte
_SPARE = 1.25  # how many times larger than what is asked for a block may be
_ALIGNMENT = 64  # of a cache line and of the widest vectors


class _Block:
    """Bytes that begin at a multiple of ``_ALIGNMENT``."""

    __slots__ = ("bytes",)

    def __init__(self, size: int) -> None:
        memory = np.empty(size + _ALIGNMENT, dtype=np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        self.bytes = memory[start : start + size]


class _Cache:
    """Blocks that no tensor has, oldest first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reset()

    def reset(self) -> None:
        """Nothing is kept, and nobody is inside.

        This is what a forked process starts with. A thread that the fork did not copy may have had
        the lock, and nobody would ever release it.
        """
        self.blocks: list[_Block] = []
        self.lock = threading.Lock()
        self.returned: deque[_Block] = deque()

    # A signal handler may fork while its thread is in one of these. So each holds on to the lock
    # and the list that it began with.

    def take(self, size: int) -> _Block:
        with self.lock:
            blocks = self._tidy()
            # The newest first: some of it may still be in the caches.
            for number in reversed(range(len(blocks))):
                if size <= blocks[number].bytes.size <= size * _SPARE:
                    return blocks.pop(number)
        return _Block(size)

    def give_back(self, block: _Block) -> None:
        """Called wherever a tensor is freed, and so perhaps by the thread that has the lock."""
        self.returned.append(block)
        lock = self.lock
        if lock.acquire(blocking=False):
            try:
                self._tidy()
            finally:
                lock.release()

    def size(self) -> int:
        with self.lock:
            return sum(block.bytes.size for block in self._tidy())

    def set_limit(self, limit: int) -> None:
        with self.lock:
            self.limit = limit
            # What is too large by itself goes first. Else smaller blocks would go in vain.
            self.blocks[:] = [block for block in self.blocks if block.bytes.size <= limit]
            self._tidy()

    def _tidy(self) -> list[_Block]:
        """Takes in what was returned, drops what is too much, and gives what is left."""
        blocks, returned = self.blocks, self.returned
        while returned:
            block = returned.popleft()
            if block.bytes.size <= self.limit:
                blocks.append(block)
        size = sum(block.bytes.size for block in blocks)
        while size > self.limit:
            size -= blocks.pop(0).bytes.size
        return blocks


def _limit_of_environment() -> int:
    text = os.environ.get("VAE_FAST_CPU_CACHE", str(_DEFAULT_LIMIT))
    # Not str.isdecimal, which takes the digits of every script, and not int, which takes more.
    if not re.fullmatch(f"[0-9]{{1,{_MOST_DIGITS}}}", text):
        given = repr(text if len(text) <= 40 else text[:40] + "...")
        warnings.warn(
            f"VAE_FAST_CPU_CACHE must be a whole number of MiB from 0 to {10**_MOST_DIGITS - 1}; "
            f"got {given}: the default of {_DEFAULT_LIMIT} is used",
            RuntimeWarning,
            stacklevel=3,
        )
        return _DEFAULT_LIMIT * _MEBIBYTE
    return int(text) * _MEBIBYTE


_cache = _Cache(_limit_of_environment())
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_cache.reset)


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A contiguous, uninitialised tensor on the CPU, as ``torch.empty`` makes it."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALLEST or _cache.limit == 0:
        return torch.empty(shape, dtype=dtype, device="cpu")
    block = _cache.take(size)
    lent = block.bytes[:size]  # the tensor's storage keeps this alive, and nothing else does
    weakref.finalize(lent, _cache.give_back, block).atexit = False
    tensor = torch.from_numpy(lent).view(dtype).view(shape)
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if fill and torch.are_deterministic_algorithms_enabled():
        tensor.fill_(math.nan)
    return tensor


def cached_bytes() -> int:
    """Bytes kept for later: in no tensor."""
    return _cache.size()


def empty_cache() -> None:
    """Give what is kept back to the system."""
    before = limit()
    set_limit(0)
    set_limit(before)


def limit() -> int:
    """The most bytes that are kept. A larger block is not kept at all."""
    return _cache.limit


def set_limit(count: int) -> None:
    """Keep at most so many bytes; 0: none, and results are made by ``torch.empty``.

    Raises:
        ValueError: ``count`` is negative.
    """
    if count < 0:
        raise ValueError(f"count must be at least 0, in bytes; got {count}")
    _cache.set_limit(count)
