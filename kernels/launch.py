"""How a call is divided among programs: operands, tiles, launches and the sums left to finish."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from vae_fast import _broadcast
from vae_fast._backends import Needs
from vae_fast._backends.reference import compute_dtype
from vae_fast.kernels import tile
from vae_fast.kernels.finish import finish_kernel
from vae_fast.kernels.replay import current, new, note_launch

ABSENT, FULL, WRAPPED, ROW, COLUMN, SCALAR, HALF = (
    form.value
    for form in (
        tile.ABSENT, tile.FULL, tile.WRAPPED, tile.ROW, tile.COLUMN, tile.SCALAR, tile.HALF,
    )
)  # fmt: skip
# Elements of a tile. 2,048 are 16 for each of 128 threads: four 16-byte accesses of float32 to a
# tensor, or two of a half, which is what keeps enough of them under way; more would cost registers.
# Small calls take fewer, so that all processors have some.
TILE = 2048
SMALL_TILE = 512
SMALL_CALL = 1 << 20
WARPS = 4
# How many times fewer, so that no kernel spills on compute capability 8.0, 9.0 or 10.0: in float64;
# where much is kept from sample to sample (log-weights, unaligned rows), and once more where from
# row to row too; and where sums over rows meet a Philox block for each element.
DOUBLE = 4
KEPT = 2
SINGLY = 16
# Programs that leave a partial sum over rows: enough for any device, few enough that adding up what
# they leave is nothing.
SUMMING_PROGRAMS = 1024
# (parts, outputs) of a tile of the finishing kernel, by what has to be added: many parts for one
# output, few parts, many parts.
FINISH_ONE, FINISH_FEW, FINISH_MANY = (2048, 1), (8, 256), (64, 32)
# Of importance weights, a value a row and sample: rows of a tile, so many that a warp reads 128
# bytes of float32, and its elements. Few, since there are few of them in all.
WEIGHT_ROWS, WEIGHT_TILE = 32, 512


class Operand(NamedTuple):
    tensor: Tensor | None
    form: int
    stride: int  # between rows


class Tiling(NamedTuple):
    """What is compiled into a kernel; see ``tile.py``."""

    R: int
    C: int
    ALIGN: int
    SHIFT: int
    FLAT: int
    COMPUTE: tl.dtype


class Part(NamedTuple):
    """Partial sums [parts, count] and what they are the sums of."""

    partial: Tensor
    out: Tensor
    parts: int


def _read(tensor: Tensor, shape: torch.Size, rows: int, cols: int) -> Operand | None:
    """How ``tensor`` is read as [rows, cols] in place; None where it cannot be."""
    try:
        row_stride, col_stride = tensor.expand(shape).view(rows, cols).stride()
    except RuntimeError:
        return None
    if cols == 1:
        return Operand(tensor, FULL if row_stride else SCALAR, row_stride)
    row_stride = row_stride if rows > 1 else cols * col_stride
    forms = {1: (COLUMN, FULL, FULL), 0: (SCALAR, ROW, None)}.get(col_stride)
    form = forms and forms[min(row_stride, 2)]
    return None if form is None else Operand(tensor, form, row_stride)


def operand(tensor: Tensor | None, shape: torch.Size, event_dims: int, samples: int) -> Operand:
    """How the kernels read ``tensor`` as [N, D]: in place, or as a contiguous copy."""
    if tensor is None:
        return Operand(None, ABSENT, 0)
    split = len(shape) - event_dims
    rows, cols = math.prod(shape[:split]), math.prod(shape[split:])
    tensor = tensor.resolve_neg()  # a view may have memory that holds the negated values
    if rows * cols == 0 or (tensor.shape == shape and tensor.is_contiguous()):
        return Operand(tensor, FULL, cols)
    if tensor.numel() == 1:
        return Operand(tensor, SCALAR, 0)
    found = _read(tensor, shape, rows, cols)
    if found is None and samples > 1:
        expanded = tensor.expand(shape)
        if expanded.stride(0) == 0:
            one = _read(expanded[0], shape[1:], rows // samples, cols)
            if one is not None and one.form == FULL:
                return Operand(tensor, WRAPPED, one.stride)
    return (
        found
        or _read(tensor.contiguous(), shape, rows, cols)
        or Operand(tensor.expand(shape).contiguous(), FULL, cols)
    )


def require_count(tensor: Tensor, *counts: int) -> None:
    """TypeError where the tensor has not as many elements as the kernel reads of it."""
    if tensor.numel() not in counts:
        raise TypeError(
            f"the kernels read {' or '.join(map(str, counts))} elements here; got a tensor of "
            f"shape {tuple(tensor.shape)}"
        )


def contiguous(tensor: Tensor | None, count: int) -> Tensor | None:
    """The tensor, which must have so many elements, one after another."""
    if tensor is None:
        return None
    require_count(tensor, count)
    return tensor.resolve_neg().contiguous()


def upstream(gradient: Tensor | None, *counts: int) -> tuple[Tensor | None, int]:
    """The gradient of each row's value, of which there are so many; whether it is one for all rows
    (SCALAR) or one a row."""
    if gradient is None:
        return None, ABSENT
    require_count(gradient, *counts)
    gradient = gradient.resolve_neg()
    if gradient.numel() and not any(
        stride for size, stride in zip(gradient.shape, gradient.stride(), strict=True) if size > 1
    ):
        return gradient, SCALAR
    return gradient.contiguous(), ROW


# The form of a gradient by what its input has one element for (``_broadcast``).
GRADIENT_FORMS = {_broadcast.FULL: FULL, _broadcast.ROW: ROW, _broadcast.COLUMN: COLUMN,
                  _broadcast.TOTAL: SCALAR, None: ABSENT}  # fmt: skip


def gradient_forms(
    tensors: Sequence[Tensor | None], needs: Needs, shape: torch.Size, event_dims: int
) -> list[int]:
    """Over what the gradient of each tensor is a sum; ABSENT where none is needed, HALF where it
    goes to a tensor that there is."""
    split = len(shape) - event_dims
    rows, cols = math.prod(shape[:split]), math.prod(shape[split:])
    counts = {FULL: rows * cols, HALF: rows * cols, ROW: rows, COLUMN: cols, SCALAR: 1}

    def form(tensor: Tensor | None, need: bool | Tensor) -> int:
        if tensor is None or need is False:
            return ABSENT
        found = HALF
        if need is True:
            found = GRADIENT_FORMS[_broadcast.reduction(tensor.shape, shape, event_dims)]
        if tensor.numel() != counts.get(found):
            raise TypeError(
                f"the kernels do not sum to the shape {tuple(tensor.shape)} beside {tuple(shape)}"
            )
        return found

    return [form(tensor, need) for tensor, need in zip(tensors, needs, strict=True)]


def power_of_two(count: int) -> int:
    """The least power of two that is no less than ``count``."""
    return 1 << max(0, count - 1).bit_length()


class Call:
    """One call of an op: its operands as the kernels take them, its tiles, and its launches."""

    def __init__(
        self,
        tensors: Sequence[Tensor | None],
        shape: torch.Size,  # [*batch, *event]
        event_dims: int,
        *,
        samples: int = 1,  # of a decoder's mean: the leading dimension of ``shape``
        grads: Sequence[int] = (),  # over what the gradients are sums
        also: Sequence[Tensor] = (),  # which decide the type computed in, and are no operands
        whole: bool = False,  # one operand at least has an element each
    ) -> None:
        split = len(shape) - event_dims
        self.rows, self.cols = math.prod(shape[:split]), math.prod(shape[split:])
        self.period = self.rows // samples if samples > 1 else max(self.rows, 1)
        self.samples = samples
        self.compute = compute_dtype(*tensors, *also)
        self.operands = [operand(tensor, shape, event_dims, samples) for tensor in tensors]
        if whole and not any(each.form == FULL for each in self.operands):
            first = tensors[0]
            assert first is not None
            self.operands[0] = Operand(first.expand(shape).contiguous(), FULL, self.cols)
        self.tensors = [each.tensor for each in self.operands]
        self.forms = [each.form for each in self.operands]
        self.strides = [each.stride for each in self.operands]
        self.device = next(tensor.device for tensor in self.tensors if tensor is not None)
        self.column_sums = COLUMN in grads
        self.halves = HALF in grads
        self.row_loop = self.column_sums or SCALAR in grads
        self.parts: list[Part] = []

    def divide(
        self, *, noise_first: int | None = None, noise_samples: int = 1, kept: bool = False
    ) -> Tiling:
        """Decides the tiles. ``noise_first`` is the noise's index of the first element; ``kept``
        says that much is kept from sample to sample."""
        wide = [each for each in self.operands if each.form in (FULL, WRAPPED)]
        strides = [each.stride for each in wide]
        first = noise_first or 0
        # Elements of 16 bytes; those of a Philox block are four.
        lanes = 8 if any(t is not None and t.element_size() == 2 for t, _, _ in wide) else 4
        starts = (self.cols, first, *strides)
        align = next((n for n in (lanes, 4) if not any(start % n for start in starts)), 1)
        double = self.compute is torch.float64
        noisy = noise_first is not None and align == 1
        fewer = KEPT if kept or (noisy and noise_samples > 1) else 1
        if self.column_sums:
            fewer = SINGLY if noisy else fewer * fewer
        most = TILE // max(fewer, DOUBLE if double else 1)
        long = self.cols > most
        shift = flat = 0
        if align == 1 and not self.column_sums:  # whose columns must not move from row to row
            shift = lanes if long else 4 if noise_first is not None else 0
        even = not self.halves and all(stride == self.cols for stride in strides)
        if long and shift and even:
            planes = (noise_samples, self.rows), (self.samples, self.period)
            ends = (rows * self.cols for count, rows in planes if count > 1)
            flat = 0 if any(end % shift for end in (first, *ends)) else shift
        width = self.cols + max(shift - 1, 0)
        lanes = min(most, max(4, power_of_two(width)))
        size = min(most, SMALL_TILE if self.rows * self.cols < SMALL_CALL else TILE)
        height = max(1, min(size // lanes, power_of_two(self.rows)))
        self.tiles = max(1, -(-width // lanes))
        row_tiles = max(1, -(-self.rows // height))
        groups = max(1, SUMMING_PROGRAMS // self.tiles) if self.row_loop else row_tiles
        self.row_tiles = -(-row_tiles // min(groups, row_tiles))
        self.groups = -(-row_tiles // self.row_tiles)
        self.programs = self.tiles * self.groups
        return Tiling(height, lanes, align, shift, flat, tl.float64 if double else tl.float32)

    def new(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        return new(shape, dtype or self.compute, self.device)

    def summed(self, out: Tensor, parts: int) -> Tensor:
        """Where the kernel leaves ``parts`` partial sums of each value of ``out``."""
        if parts == 1:
            return out
        partial = self.new((parts, out.numel()))
        self.parts.append(Part(partial, out, parts))
        return partial

    def gradient(
        self, tensor: Tensor | None, form: int, need: bool | Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradient of ``tensor``, and where the kernel leaves it or its parts."""
        if tensor is None or form == ABSENT:
            return None, None
        if isinstance(need, Tensor):
            return need, need
        gradient = self.new(tensor.shape, tensor.dtype)
        parts = {FULL: 1, ROW: self.tiles, COLUMN: self.groups, SCALAR: self.programs}
        return gradient, self.summed(gradient, parts[form])

    def run(self, kernel: Any, *arguments: Any) -> None:
        """Launches the kernel, and then finishes the sums it leaves in parts."""
        with current(self.device):
            launch(kernel, self.programs, *arguments)
            if self.parts:
                _finish(self.parts)


def launch(kernel: Any, programs: int, *arguments: Any) -> None:
    # Contraction is off: where a fused multiply-add is wanted, the kernels say so.
    compiled = kernel[(programs,)](
        *arguments, num_warps=WARPS, num_stages=1, enable_fp_fusion=False
    )
    note_launch(kernel, compiled, programs, arguments)


def _finish(sums: list[Part]) -> None:
    arguments: list[Any] = []
    shapes: list[int] = []
    ends: list[int] = []
    programs = 0
    for part in sums:
        count = part.out.numel()
        few = FINISH_FEW if part.parts <= FINISH_FEW[0] else FINISH_MANY
        height, width = FINISH_ONE if count == 1 else few
        programs += max(1, -(-count // width))
        arguments += [part.partial, part.out, part.parts, count]
        shapes += [height, width]
        ends.append(programs)
    for _ in range(3 - len(sums)):
        arguments += [None, None, 0, 0]
        shapes += [0, 0]
        ends.append(programs)
    launch(finish_kernel, programs, *arguments, *ends[:2], *shapes)
