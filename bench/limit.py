"""What no implementation can go below: memory traffic at large sizes, Python and autograd at small.

The first is the bytes that an op must move over the bandwidth of a large copy. Where that is the
larger one the copy takes its turn among the peers, since memory that others use as well may be half
as fast some minutes later. The second is an ``autograd.Function`` with the op's arguments, outputs
and gradients that computes nothing (``floor.py``).
"""

from __future__ import annotations

from functools import cache

import torch

from bench import device, harness

COPY_BYTES = 256 * 2**20
QUICK_COPY_BYTES = 32 * 2**20


COPY = "a large copy"  # its name in a comparison


class Copy:
    """A large copy on a device, as a block to be timed on the threads that torch has then."""

    def __init__(self, where: str, quick: bool) -> None:
        count = QUICK_COPY_BYTES if quick else COPY_BYTES
        source = torch.ones(count // 4, device=where)
        target = torch.zeros_like(source)
        self.bytes = 2 * count  # read and written
        self.block = harness.timed(lambda _: target.copy_(source), device.synchronizer(where))

    def bandwidth(self, seconds: float) -> float:
        """Bytes a second, measured by itself."""
        return self.bytes / harness.interleave({COPY: self.block}, seconds).seconds(COPY).middle


copy = cache(Copy)  # one a process


def seconds(least_bytes: int | None, bandwidth: float | None) -> float | None:
    """Of moving so much; None where either is not known."""
    return None if least_bytes is None or bandwidth is None else least_bytes / bandwidth
