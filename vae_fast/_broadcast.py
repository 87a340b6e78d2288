"""How an operand lies beside the full shape of a call, and over what its gradient is a sum.

This is decided here for every backend, and from the operand's shape as it is aligned with the full
one: a logvar ``[8, 8]`` beside a mean ``[5, 1, 8, 8]`` is ``[1, 1, 8, 8]``, one event for all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

# What an operand has one element for: each element of the call, a row, a column, or all together.
# As in csrc/common/types.h.
FULL, ROW, COLUMN, TOTAL = 0, 1, 2, 3


def reduction(shape: Sequence[int], full: Sequence[int], event_dims: int) -> int | None:
    """What an operand of ``shape``, which broadcasts to ``full``, has one element for.

    None: for something else, such as the channels of an image. Kernels take no such operand.
    """
    if shape == full:
        return FULL
    split = len(full) - event_dims
    if event_dims and len(shape) == event_dims and shape == full[split:]:  # in the shortest time
        return COLUMN
    aligned = (1,) * (len(full) - len(shape)) + tuple(shape)
    batch, event = aligned[:split], aligned[split:]
    whole_batch, whole_event = batch == tuple(full[:split]), event == tuple(full[split:])
    if whole_batch and whole_event:
        return FULL
    one_batch, one_event = all(s == 1 for s in batch), all(s == 1 for s in event)
    if one_batch and one_event:
        return TOTAL
    if one_batch and whole_event:
        return COLUMN
    if whole_batch and one_event:
        return ROW
    return None
