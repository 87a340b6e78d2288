"""How tensors go down to the C++ kernels.

A tensor goes down as ``(pointer, dtype, strides, tensor)``, strides being None where it is
contiguous and has the op's own shape, and the tensor being there to stay alive; an output as
``(pointer, dtype, reduction)``. Outputs are made on the CPU by name: torch's default device may be
another, and a kernel would write to its pointer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast import memory
from vae_fast._backends._codes import COLUMN, DTYPES, FULL, ROW, reduction_of


def _operand(tensor: Tensor | None, shape: torch.Size) -> tuple[Any, ...] | None:
    if tensor is None:
        return None
    if tensor.is_neg():  # a view whose memory holds the negated values
        tensor = tensor.resolve_neg()
    if tensor.shape == shape and tensor.is_contiguous():
        return tensor.data_ptr(), DTYPES[tensor.dtype], None, tensor
    return tensor.data_ptr(), DTYPES[tensor.dtype], tensor.expand(shape).stride(), tensor


def _operands(tensors: tuple[Tensor | None, ...], shape: torch.Size) -> tuple[Any, ...]:
    return tuple([None if tensor is None else _operand(tensor, shape) for tensor in tensors])


def _output(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.data_ptr(), DTYPES[tensor.dtype], FULL


def _row_output(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.data_ptr(), DTYPES[tensor.dtype], ROW


def _column_output(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.data_ptr(), DTYPES[tensor.dtype], COLUMN


def _empty_like(tensor: Tensor, operand: tuple[Any, ...]) -> Tensor:
    # Half the cost of torch.empty, and contiguous where the tensor is.
    if operand[2] is None and tensor.nbytes < memory.SMALLEST:
        return torch.empty_like(tensor)
    return memory.empty(tensor.shape, tensor.dtype)


def _empty_rows(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    # With one dimension or none the strides are known, and torch.empty_strided costs half.
    if len(shape) < 2:
        return torch.empty_strided(shape, (1,) * len(shape), dtype=dtype, device="cpu")
    return torch.empty(shape, dtype=dtype, device="cpu")


def _gradients(
    tensors: tuple[Tensor | None, ...],
    operands: tuple[Any, ...],
    needs: tuple[bool, ...],
    full: torch.Size,
    event_dims: int,
) -> tuple[list[Tensor | None], tuple[Any, ...]]:
    """Uninitialised gradients of the tensors where needed, and the same as outputs."""
    gradients: list[Tensor | None] = []
    outputs: list[tuple[int, int, int] | None] = []
    for tensor, operand, needed in zip(tensors, operands, needs, strict=True):
        if tensor is None or not needed:
            gradients.append(None)
            outputs.append(None)
            continue
        gradient = _empty_like(tensor, operand)
        code = FULL if operand[2] is None else reduction_of(tensor.shape, full, event_dims)
        gradients.append(gradient)
        outputs.append((gradient.data_ptr(), operand[1], code))
    return gradients, tuple(outputs)


def _with_samples(shape: torch.Size, num_samples: int | None) -> torch.Size:
    return shape if num_samples is None else torch.Size((num_samples, *shape))


def _sampled(
    tensor: Tensor | None, z_shape: torch.Size, num_samples: int | None
) -> tuple[Any, ...] | None:
    """An operand that has the sample axis, or is contiguous."""
    if tensor is not None and num_samples is None and not tensor.is_contiguous():
        tensor, z_shape = tensor.unsqueeze(0), torch.Size((1, *z_shape))
    return _operand(tensor, z_shape)
