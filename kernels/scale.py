"""``scale_``: the gradients of a loss times what arrives for it, without waiting for that."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from vae_fast.kernels.gaussian import unless_zero
from vae_fast.kernels.launch import TILE, launch
from vae_fast.kernels.replay import current, replayed


@triton.jit
def scale_block(p, factor, start, count, C: tl.constexpr):
    element = start + tl.arange(0, C)
    if start + C <= count:  # without a mask accesses are 16 bytes wide
        b = tl.load(p + element).to(factor.dtype)
        tl.store(p + element, factor * unless_zero(factor, b))
    else:
        m = element < count
        b = tl.load(p + element, mask=m, other=0.0).to(factor.dtype)
        tl.store(p + element, factor * unless_zero(factor, b), mask=m)


@triton.jit(do_not_specialize=("count0", "count1", "count2"))
def scale_kernel(
    p0, count0,  # a gradient
    p1, count1,  # and another, or None
    p2, count2,
    p_factor,  # 0-dim
    C: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    factor = tl.load(p_factor).to(COMPUTE)
    if factor != 1.0:  # else no gradient is touched
        start = tl.program_id(0).to(tl.int64) * C
        scale_block(p0, factor, start, count0, C)
        if p1 is not None:
            scale_block(p1, factor, start, count1, C)
        if p2 is not None:
            scale_block(p2, factor, start, count2, C)


@replayed
def scale_(gradients: tuple[Tensor | None, ...], factor: Tensor) -> None:
    """Multiplies each gradient (contiguous, at most three) by a 0-dim factor, in place."""
    given = [(g, g.numel()) for g in gradients if g is not None]
    wide = any(each.dtype.itemsize == 8 for each in (factor, *(g for g, _ in given)))
    programs = max(1, -(-max(count for _, count in given) // TILE))
    arguments = [value for pair in given for value in pair] + [None, 0] * (3 - len(given))
    factor = factor.resolve_neg()
    with current(factor.device):
        launch(scale_kernel, programs, *arguments, factor, TILE, tl.float64 if wide else tl.float32)
