"""What no implementation can go below: memory traffic at large sizes, Python and autograd at small.

The first is the bytes that an op must move over the bandwidth of a large copy in the same run; the
second is an ``autograd.Function`` with the op's arguments, outputs and gradients that computes
nothing (``floor.py``). The limit is the larger of the two.
"""

from __future__ import annotations

import torch

from bench import device, harness

COPY_BYTES = 256 * 2**20
QUICK_COPY_BYTES = 32 * 2**20


def copy_bandwidth(where: str, seconds: float, quick: bool = False) -> float:
    """Bytes a second, those read and those written, on the threads that torch has now."""
    count = QUICK_COPY_BYTES if quick else COPY_BYTES
    source = torch.ones(count // 4, device=where)
    target = torch.zeros_like(source)
    block = harness.timed(lambda _: target.copy_(source), device.synchronizer(where))
    return 2 * count / harness.interleave({"copy": block}, seconds).seconds("copy").middle


def seconds(least_bytes: int | None, bandwidth: float | None, floor: float | None) -> float | None:
    """Of a call; None where neither limit is known."""
    known = [floor] if floor is not None else []
    if least_bytes is not None and bandwidth is not None:
        known.append(least_bytes / bandwidth)
    return max(known, default=None)
