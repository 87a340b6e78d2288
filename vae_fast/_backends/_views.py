"""How tensors go down to the CUDA kernels.

A tensor goes as ``(pointer, dtype, sample stride, row stride, column stride)``, an output as
``(pointer, dtype, reduction)``. Read in place are tensors whose batch and event dimensions are each
walked by one stride, the event's being 1, or 0 where the tensor is broadcast over it: contiguous
ones, rows cut from wider ones, and every simple broadcast. Others are copied first.

Of mixed dtypes, any tensor may be float32 beside a half-precision mean. One of another dtype is
converted to the type computed in, and its gradient back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast import _seed
from vae_fast._backends import _codes
from vae_fast._backends.reference import compute_dtype

Strides = tuple[int, int, int]  # of sample, row and column
Operand = tuple[int, int, int, int, int, Tensor]
Output = tuple[int, int, int]


class Frame(NamedTuple):
    """The shape that a tensor is read in: [*samples, *batch, *event]."""

    shape: torch.Size
    first: int  # dimensions of the sample axis: 0 or 1
    last: int  # with those of the batch
    sizes: tuple[int, int, int]  # L, N, D


def frame_of(shape: Sequence[int], event_dims: int, samples: bool) -> Frame:
    shape = torch.Size(shape)
    first, last = int(samples), len(shape) - event_dims
    sizes = (math.prod(shape[:first]), math.prod(shape[first:last]), math.prod(shape[last:]))
    return Frame(shape, first, last, sizes)


def sample_frame(shape: Sequence[int], num_samples: int | None, event_dims: int) -> Frame:
    """That of samples from a Gaussian of a shape [*batch, *event]."""
    if num_samples is None:
        return frame_of(shape, event_dims, samples=False)
    return frame_of((num_samples, *shape), event_dims, samples=True)


def decoder_frame(x: Tensor, mean: Tensor, event_dims: int) -> Frame:
    return frame_of(mean.shape, event_dims, samples=mean.dim() > x.dim())


def joined(sizes: Sequence[int], strides: Sequence[int]) -> int | None:
    """The one stride that walks these dimensions in order, None where there is none."""
    step: int | None = None
    span = 0  # what a step in the next dimension outwards has to be
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size == 1:
            continue
        if step is None:
            step = stride
        elif stride != span:
            return None
        span = stride * size
    return 0 if step is None else step


def strides_in(tensor: Tensor, frame: Frame) -> Strides | None:
    """None where the kernels cannot read the tensor in place."""
    shape, first, last, (_, rows, cols) = frame
    if tensor.shape == shape and tensor.is_contiguous():
        return rows * cols, cols, 1
    strides = tensor.expand(shape).stride()
    row = joined(shape[first:last], strides[first:last])
    column = joined(shape[last:], strides[last:])
    if row is None or column not in (0, 1):
        return None
    return strides[0] if first else 0, row, column


def operand(tensor: Tensor | None, frame: Frame, adjacent: bool = False) -> Operand | None:
    """What the kernels take for ``tensor`` broadcast to a frame; the tensor itself to stay alive.

    ``adjacent``: it may not be repeated along a row.
    """
    if tensor is None:
        return None
    if tensor.is_neg():  # a view whose memory holds the negated values
        tensor = tensor.resolve_neg()
    strides = strides_in(tensor, frame)
    if strides is None:  # its own elements in order may do, whatever it is broadcast over
        tensor = tensor.contiguous()
        strides = strides_in(tensor, frame)
    if strides is None or (adjacent and strides[2] == 0 and frame.sizes[2] > 1):
        tensor = tensor.expand(frame.shape).contiguous()
        strides = strides_in(tensor, frame)
    assert strides is not None
    return tensor.data_ptr(), _codes.DTYPES[tensor.dtype], *strides, tensor


def sampled(tensor: Tensor | None, frame: Frame, like: Tensor) -> Operand | None:
    """``tensor``, of the samples' shape, beside a mean of ``like``'s dtype."""
    if tensor is None:
        return None
    compute = compute_dtype(like)
    if tensor.dtype not in (like.dtype, compute):
        tensor = tensor.to(compute)
    return operand(tensor, frame)


def by_row(tensor: Tensor | None, frame: Frame) -> Operand | None:
    """``tensor`` of one element a row."""
    shape = frame.shape[: frame.last]
    return operand(tensor, frame_of(shape, 0, samples=frame.first == 1))


def decoder_operands(inputs: Sequence[Tensor | None], frame: Frame) -> tuple[Any, ...]:
    x, mean, logvar = inputs
    return (
        operand(x, frame, adjacent=True), operand(mean, frame, adjacent=True),
        operand(logvar, frame),
    )  # fmt: skip


def noise(seed: int | Tensor | None, row_offset: int, device: torch.device) -> tuple[Any, ...]:
    if isinstance(seed, Tensor) and seed.device == device:
        return None, seed.data_ptr(), row_offset % 2**64
    return 0 if seed is None else _seed.to_int(seed), None, row_offset % 2**64


def scalar(value: float | Tensor, device: torch.device) -> tuple[tuple[int, int] | float, Any]:
    """A number as the kernels take it, and the tensor, if any, that has to stay alive for it."""
    if not isinstance(value, Tensor) or value.device != device:
        return float(value), None
    value = value.resolve_neg()
    if value.dtype not in _codes.DTYPES:
        value = value.to(torch.float64)
    return (value.data_ptr(), _codes.DTYPES[value.dtype]), value


def output(tensor: Tensor, reduction: int = _codes.FULL) -> Output:
    return tensor.data_ptr(), _codes.DTYPES[tensor.dtype], reduction


def as_read(tensors: Sequence[Tensor | None], like: Tensor) -> tuple[Tensor | None, ...]:
    """The tensors in dtypes that the kernels read side by side: ``like``'s, and float32."""
    compute = compute_dtype(*tensors)
    alike = (compute,) if compute is torch.float64 else (like.dtype, compute)
    return tuple(t if t is None or t.dtype in alike else t.to(compute) for t in tensors)


def new_gradients(
    tensors: Sequence[Tensor | None], needs: Sequence[bool], frame: Frame
) -> tuple[list[Tensor | None], tuple[Output | None, ...]]:
    """Uninitialised gradients of the tensors where needed, and the same as outputs."""
    event_dims = len(frame.shape) - frame.last
    gradients = [
        torch.empty(t.shape, dtype=t.dtype, device=t.device) if t is not None and need else None
        for t, need in zip(tensors, needs, strict=True)
    ]
    outputs = tuple(
        None if g is None else output(g, _codes.reduction_of(g.shape, frame.shape, event_dims))
        for g in gradients
    )
    return gradients, outputs


def returned(
    gradients: Sequence[Tensor | None], tensors: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """The gradients in the dtypes of the inputs that they are of."""
    return tuple(
        g if g is None or t is None else g.to(t.dtype)
        for g, t in zip(gradients, tensors, strict=True)
    )


def zeros(tensors: Sequence[Tensor | None], needs: Sequence[bool]) -> tuple[Tensor | None, ...]:
    return tuple(
        torch.zeros(t.shape, dtype=t.dtype, device=t.device) if t is not None and need else None
        for t, need in zip(tensors, needs, strict=True)
    )
