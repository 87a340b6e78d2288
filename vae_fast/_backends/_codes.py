"""The numbers of dtypes and reductions in the compiled kernels, as in ``csrc/common/types.h``."""

from __future__ import annotations

import math

import torch

DTYPES = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
FULL, ROW, COLUMN, TOTAL = range(4)


def reduction_of(shape: torch.Size, full: torch.Size, event_dims: int) -> int:
    """Which sum of the values at the elements an input of this shape has for its gradient."""
    count = math.prod(shape)
    if count == math.prod(full):
        return FULL
    if count == 1:
        return TOTAL
    trailing = tuple(shape[max(0, len(shape) - event_dims) :])
    if event_dims and trailing == tuple(full[len(full) - event_dims :]):
        return COLUMN
    return ROW
