"""How a program finds its elements, loads its operands, and stores or sums its results.

A tile is R rows by C lanes. Lane i of a row is column ``start + i``. ``start`` is a multiple of C,
less a shift of the row's own where ``T.SHIFT`` is not 0: that lets every tile begin at an element
whose index is a multiple of SHIFT, whatever D is, where a Philox block and a 16-byte access begin.

``T`` is the call's ``launch.Tiling``. What the compiler can take for granted is said by divisions
that change nothing: D and the strides are multiples of ``T.ALIGN``, and the place where a tile
begins is a multiple of ``T.FLAT``. Hence accesses become 16 bytes wide, which a mask of single
elements would undo: where a mask is not known to be constant over 16 bytes, tiles inside a row are
loaded and stored without one.

``at`` is where a tile is: (row [R, 1], its mask, start, mask of columns, mask of elements [R, C]).
"""

from __future__ import annotations

import triton
import triton.language as tl

# How an operand of shape [N, D] lies in memory, and over what its gradient is a sum.
ABSENT = tl.constexpr(0)
FULL = tl.constexpr(1)  # an element each, rows ``stride`` apart
WRAPPED = tl.constexpr(2)  # FULL, but with the rows of one sample only: row n is at n mod period
ROW = tl.constexpr(3)  # one value a row
COLUMN = tl.constexpr(4)  # one value a column
SCALAR = tl.constexpr(5)
HALF = tl.constexpr(6)  # of a gradient: FULL, but with rows 2 D apart


@triton.jit
def multiple(x, FACTOR: tl.constexpr):
    """x, of which it is known that FACTOR divides it."""
    if FACTOR > 1:
        return x // FACTOR * FACTOR
    else:
        return x


@triton.jit
def locate(row_tile, tile, rows, cols, first, T: tl.constexpr):
    """``at`` of a tile. ``first`` is the index of element (0, 0), that of (n, d) being
    ``first + n D + d``."""
    row = row_tile * T.R + tl.arange(0, T.R)[:, None].to(tl.int64)
    m_row = row < rows
    begin = tile * T.C
    lane = tl.arange(0, T.C)[None, :]
    if T.SHIFT > 0:
        start = begin - ((first + row * cols) & (T.SHIFT - 1))
        left = tl.minimum(cols - start, T.C).to(tl.int32)
        m_col = (lane < left) & (lane >= tl.maximum(0 - start, 0).to(tl.int32))
        return row, m_row, start, m_col, m_col & m_row
    else:
        m_col = lane < multiple(tl.minimum(cols - begin, T.C).to(tl.int32), T.ALIGN)
        return row, m_row, begin, m_col, m_col & m_row


@triton.jit
def is_whole(at, rows, cols, T: tl.constexpr):
    """Whether nothing of the tile is masked. Asked only where that makes accesses wide."""
    if T.FLAT > 1:
        start = tl.min(at[2])
        return (tl.max(at[0]) < rows) & (start >= 0) & (start + T.C <= cols)
    else:
        return False


@triton.jit
def offsets(at, row, stride, T: tl.constexpr):
    """Where the tile's elements are in a tensor whose rows are ``stride`` apart, [R, C]."""
    begin = multiple(row * multiple(stride, T.ALIGN) + at[2], T.FLAT)
    return begin + tl.arange(0, T.C)[None, :]


@triton.jit
def plane(sample, rows, cols, T: tl.constexpr):
    """Where a sample begins in a tensor [L, N, D]."""
    return multiple(rows * multiple(cols, T.ALIGN) * sample, T.FLAT)


@triton.jit
def load_elements(p, offset, m, MASKED: tl.constexpr, T: tl.constexpr):
    if MASKED:
        return tl.load(p + offset, mask=m, other=0.0).to(T.COMPUTE)
    else:
        return tl.load(p + offset).to(T.COMPUTE)


@triton.jit
def store_elements(p, offset, b, m, MASKED: tl.constexpr):
    if MASKED:
        tl.store(p + offset, b, mask=m)
    else:
        tl.store(p + offset, b)


@triton.jit
def load(p, stride, at, period, FORM: tl.constexpr, MASKED: tl.constexpr, T: tl.constexpr):
    """An operand at the tile's elements, in a shape that broadcasts to [R, C]; 0 if ABSENT."""
    row, m_row, start, m_col, m = at
    if FORM == FULL:
        return load_elements(p, offsets(at, row, stride, T), m, MASKED, T)
    elif FORM == WRAPPED:
        return load_elements(p, offsets(at, row % period, stride, T), m, MASKED, T)
    elif FORM == ROW:
        return tl.load(p + row, mask=m_row, other=0.0).to(T.COMPUTE)
    elif FORM == COLUMN:
        return load_elements(p, start + tl.arange(0, T.C)[None, :], m_col, MASKED, T)
    elif FORM == SCALAR:
        return tl.load(p).to(T.COMPUTE)
    else:
        return tl.full([1, 1], 0.0, T.COMPUTE)


@triton.jit
def load_rows(p, at, period, FORM: tl.constexpr, T: tl.constexpr):
    """A value of each row (WRAPPED: of each row of one sample), or the same value for all."""
    row, m_row, _, _, _ = at
    if FORM == ROW:
        return tl.load(p + row, mask=m_row, other=0.0).to(T.COMPUTE)
    elif FORM == WRAPPED:
        return tl.load(p + row % period, mask=m_row, other=0.0).to(T.COMPUTE)
    else:
        return tl.load(p).to(T.COMPUTE)


@triton.jit
def load_sample_rows(p, sample, rows, at, FORM: tl.constexpr, T: tl.constexpr):
    """``load_rows`` of a sample's values in [L, N]."""
    if FORM == ROW:
        return load_rows(p + sample * rows, at, 1, ROW, T)
    else:
        return load_rows(p, at, 1, FORM, T)


@triton.jit
def sum_rows(b, at):
    """The sum [R, 1] of each row's elements."""
    return tl.sum(tl.where(at[4], b, 0.0), axis=1)[:, None]


@triton.jit
def new_sum(FORM: tl.constexpr, T: tl.constexpr):
    """What ``add_gradient`` adds to: sums over rows stay apart by element until the last."""
    if (FORM == COLUMN) or (FORM == SCALAR):
        return tl.full([T.R, T.C], 0.0, T.COMPUTE)
    else:
        return tl.full([1, 1], 0.0, T.COMPUTE)


@triton.jit
def add_gradient(
    p, b_sum, b, at, tile, rows, cols,
    FORM: tl.constexpr, MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Stores a gradient [N, D], or its sum over the tile's rows [tiles, N]; or adds it."""
    row, m_row, _, _, m = at
    if FORM == FULL:
        store_elements(p, offsets(at, row, cols, T), b, m, MASKED)
        return b_sum
    elif FORM == HALF:
        store_elements(p, offsets(at, row, 2 * cols, T), b, m, MASKED)
        return b_sum
    elif FORM == ROW:
        tl.store(p + (tile * rows + row), sum_rows(b, at), mask=m_row)
        return b_sum
    elif FORM == ABSENT:
        return b_sum
    else:
        return b_sum + tl.where(m, b, 0.0)


@triton.jit
def store_sum(p, b_sum, group, program, at, cols, FORM: tl.constexpr, T: tl.constexpr):
    """Stores what ``add_gradient`` has added: [groups, D], or a value a program."""
    if FORM == COLUMN:
        column = at[2] + tl.arange(0, T.C)[None, :]
        tl.store(p + (group * cols + column), tl.sum(b_sum, axis=0)[None, :], mask=at[3])
    elif FORM == SCALAR:
        tl.store(p + program, tl.sum(tl.sum(b_sum, axis=1), axis=0))
