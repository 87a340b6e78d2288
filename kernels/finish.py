"""The second step of a sum: adds what the programs of a launch have left, always in one order."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sum_parts(p, p_out, block, parts, count, G: tl.constexpr, K: tl.constexpr):
    """Columns of ``p`` [parts, count] summed to ``p_out`` [count], K of them."""
    column = block * K + tl.arange(0, K)[None, :].to(tl.int64)
    m_column = column < count
    b_sum = tl.zeros([G, K], p.dtype.element_ty)
    for begin in range(0, parts, G):
        part = begin + tl.arange(0, G)[:, None].to(tl.int64)
        m = (part < parts) & m_column
        b_sum += tl.load(p + (part * count + column), mask=m, other=0.0)
    tl.store(p_out + column, tl.sum(b_sum, axis=0)[None, :], mask=m_column)


@triton.jit(
    do_not_specialize=["parts0", "count0", "parts1", "count1", "parts2", "count2", "end0", "end1"]
)
def finish_kernel(
    p0, p_out0, parts0, count0,
    p1, p_out1, parts1, count1,
    p2, p_out2, parts2, count2,
    end0, end1,  # the programs before these have sum 0, and sum 1
    G0: tl.constexpr, K0: tl.constexpr, G1: tl.constexpr, K1: tl.constexpr,
    G2: tl.constexpr, K2: tl.constexpr,
):  # fmt: skip
    """Up to three sums of one launch; G is 0 where there is none."""
    pid = tl.program_id(0).to(tl.int64)
    if pid < end0:
        sum_parts(p0, p_out0, pid, parts0, count0, G0, K0)
    if G1 > 0:
        if (pid >= end0) & (pid < end1):
            sum_parts(p1, p_out1, pid - end0, parts1, count1, G1, K1)
    if G2 > 0:
        if pid >= end1:
            sum_parts(p2, p_out2, pid - end1, parts2, count2, G2, K2)
