"""Values as arguments of a kernel."""

from __future__ import annotations

import struct

import torch

from vae_fast._control import NO_CONTROL, KLControl

# The names under which kernels take the two words of a seed, and beta.
SEED_WORDS = ("key_low", "key_high")
BETA = "beta"


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
