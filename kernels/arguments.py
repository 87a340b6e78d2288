"""Values as arguments of a kernel."""

from __future__ import annotations

import struct
from typing import Any

import torch
from torch import Tensor

from vae_fast._control import NO_CONTROL, KLControl
from vae_fast._storage import UnreadableError, extent, require_extent

# The names under which kernels take the two words of a seed, and beta.
SEED_WORDS = ("key_low", "key_high")
BETA = "beta"
# Dtypes of tensors that kernels read, the seed's among them.
READ = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64)


def readable(value: Any) -> Any:
    """The argument, with memory for zeros that torch keeps without any; TypeError for a tensor
    whose memory is not there."""
    if isinstance(value, tuple):
        made = tuple(readable(each) for each in value)
        return value if all(a is b for a, b in zip(value, made, strict=True)) else made
    if not isinstance(value, Tensor):
        return value
    plain = type(value).__torch_dispatch__ is Tensor.__torch_dispatch__
    if (
        not plain
        or value.dtype not in READ
        or value.layout is not torch.strided
        or not torch._C._has_storage(value)
    ):
        raise UnreadableError(
            "the kernels read strided tensors of float64, float32, float16 or bfloat16; got a "
            f"{type(value).__name__} of {value.dtype}, {value.layout}"
        )
    if value._is_zerotensor():
        value = value.clone()
    require_extent(value, value.data_ptr(), extent(value))
    return value


def signed(value: int) -> int:
    """The int64 with the low 64 bits of ``value``."""
    return (value + 2**63) % 2**64 - 2**63


def _signed_word(word: int) -> int:
    return (word + 2**31) % 2**32 - 2**31


def words_of(seed: int) -> tuple[int, int]:
    """Its low and its high 32 bits, as int32."""
    return _signed_word(seed), _signed_word(seed >> 32)


def as_argument(value: float, compute: torch.dtype) -> float | int:
    """A number as an argument of a kernel. Triton passes a float as float32, which is too short
    for float64: of that the bits go, as an int64."""
    if compute is torch.float64:
        return struct.unpack("<q", struct.pack("<d", value))[0]
    return float(value)


def control_arguments(control: KLControl, compute: torch.dtype) -> tuple[float | int | None, ...]:
    """``control`` as arguments of a kernel: None each where nothing is to be done."""
    if control == NO_CONTROL:
        return (None,) * len(control)
    return tuple(as_argument(value, compute) for value in control)
