"""Whether a tensor's memory is there, asked where plain PyTorch or Triton reads it.

A storage can be freed or cut under its tensors (``untyped_storage().resize_``). The C++ bindings
ask by themselves; PyTorch's own arithmetic does not, and ends the process.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Tensors whose memory is their own. Others do with an operation what they like.
PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)


class UnreadableError(TypeError):
    """Kernels cannot read a tensor, for what it is; plain PyTorch may."""


def is_plain(tensor: Tensor) -> bool:
    """Whether its memory is its own. Nothing else tells of what a vmap of older kind maps over."""
    return type(tensor) in PLAIN and torch._C._has_storage(tensor)


def require_memory(*tensors: Tensor | None) -> None:
    """TypeError for a tensor that ends behind its memory."""
    if torch.compiler.is_dynamo_compiling():
        return
    for tensor in tensors:
        # Written out, as ``is_plain`` and ``extent`` are: some of a small call's time.
        if tensor is None or type(tensor) not in PLAIN or not torch._C._has_storage(tensor):
            continue
        held, offset = tensor.untyped_storage().nbytes(), tensor.storage_offset()
        if tensor.is_contiguous():
            end = (offset + tensor.numel()) * tensor.itemsize
        else:
            end = offset * tensor.itemsize + extent(tensor)
        if end <= held or tensor.numel() == 0:
            continue
        # Zeros that torch keeps without memory it does not read, nor a functional tensor's.
        if tensor._is_zerotensor() or torch._is_functional_tensor(tensor):
            continue
        raise _error(tensor, end, held)


def require_extent(tensor: Tensor, pointer: int, extent: int) -> None:
    """The same for a tensor that is going to be read by its pointer, whatever it is."""
    storage = tensor.untyped_storage()
    begin, held = storage.data_ptr(), storage.nbytes()
    if pointer + extent > begin + held:
        raise _error(tensor, pointer + extent - begin, held)


def extent(tensor: Tensor) -> int:
    """Bytes from the first element to the end of the last one."""
    if tensor.is_contiguous():
        return tensor.numel() * tensor.itemsize
    if tensor.numel() == 0:
        return 0
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum((size - 1) * stride for size, stride in strides)) * tensor.itemsize


def _error(tensor: Tensor, needed: int | torch.SymInt, held: int) -> TypeError:
    return TypeError(
        f"a tensor must have its memory; got one of shape {tuple(tensor.shape)} that needs "
        f"{needed} bytes in a storage of {held}"
    )
