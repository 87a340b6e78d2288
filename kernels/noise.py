"""``noise``, and the noise that ``sample_kl`` makes for its tiles."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from vae_fast._seed import to_int
from vae_fast.kernels.arguments import SEED_WORDS, signed, words_of
from vae_fast.kernels.launch import Call, Tiling, contiguous
from vae_fast.kernels.random import normals, normals_singly
from vae_fast.kernels.replay import new, replayed
from vae_fast.kernels.tile import is_whole, load_elements, locate, offsets, plane, store_elements

# How the noise of a tile is had.
NO_NOISE = tl.constexpr(0)
GIVEN = tl.constexpr(1)  # eps is an argument
BLOCKS = tl.constexpr(2)  # four elements a Philox block: tiles begin at whole blocks
SINGLY = tl.constexpr(3)  # a Philox block an element, wherever a tile begins

# Arguments that are not compiled in, whatever their value.
KEY_SIZES = (*SEED_WORDS, "first")


@triton.jit
def load_key(p_seed, key_low, key_high):
    """The 64 bits of the seed: from memory, or from two int32 words."""
    if p_seed is not None:
        return tl.load(p_seed).to(tl.uint64, bitcast=True)
    else:
        high = key_high.to(tl.uint32, bitcast=True).to(tl.uint64) << 32
        return high | key_low.to(tl.uint32, bitcast=True).to(tl.uint64)


@triton.jit
def noise_of_tile(
    p_eps, place, key, first, sample, at, cols,
    NOISE: tl.constexpr, MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """The noise [R, C] of a sample at the tile's elements, which are at ``place`` in eps."""
    if NOISE == GIVEN:
        return load_elements(p_eps, place, at[4], MASKED, T)
    else:
        element = (at[0] * cols + first + at[2]).to(tl.uint64, bitcast=True)
        if NOISE == BLOCKS:
            return normals(element, sample, key, T.R, T.C, T.COMPUTE)
        else:
            lane = tl.arange(0, T.C)[None, :].to(tl.uint64)
            return normals_singly(element + lane, sample, key, T.COMPUTE)


@triton.jit
def noise_tile(p_eps, key, first, sample, at, rows, cols, NOISE: tl.constexpr,
               MASKED: tl.constexpr, T: tl.constexpr):  # fmt: skip
    eps = noise_of_tile(p_eps, 0, key, first, sample, at, cols, NOISE, MASKED, T)
    place = plane(sample, rows, cols, T) + offsets(at, at[0], cols, T)
    store_elements(p_eps, place, eps, at[4], MASKED)


@triton.jit(do_not_specialize=("rows", "cols", "tiles", *KEY_SIZES))
def noise_kernel(
    p_eps,  # [L, N, D], N being 1
    rows, cols, tiles,
    p_seed, key_low, key_high, first,
    NOISE: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    sample = (pid // tiles).to(tl.int64)
    at = locate(0, tile, rows, cols, first, T)
    key = load_key(p_seed, key_low, key_high)
    if is_whole(at, rows, cols, T):
        noise_tile(p_eps, key, first, sample, at, rows, cols, NOISE, False, T)
    else:
        noise_tile(p_eps, key, first, sample, at, rows, cols, NOISE, True, T)


class Noise:
    """Where the noise of a call comes from, as kernels take it."""

    def __init__(
        self,
        seed: int | Tensor | None,
        first: int,  # index of the first element
        device: torch.device,
        eps: Tensor | None = None,
        count: int = 0,  # of its elements
    ) -> None:
        if isinstance(seed, Tensor) and seed.device != device:
            seed = to_int(seed)  # one on the CPU: nothing waits
        self.eps = contiguous(eps, count)
        self.first = signed(first)
        p_seed = seed if isinstance(seed, Tensor) else None
        value = seed if isinstance(seed, int) else 0
        self.arguments = (p_seed, *words_of(value), self.first)

    def mode(self, tiling: Tiling) -> int:
        if self.eps is not None:
            return GIVEN.value
        return BLOCKS.value if tiling.ALIGN > 1 or tiling.SHIFT else SINGLY.value


@replayed
def noise(
    shape: tuple[int, ...],  # [*batch, *event]
    event_dims: int,
    num_samples: int | None,
    seed: int | Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:  # shape, behind num_samples where that is given
    full = shape if num_samples is None else (num_samples, *shape)
    eps = new(full, dtype, device)
    # One row of all elements: what the rows are matters only to where it begins.
    first = row_offset * math.prod(shape[len(shape) - event_dims :])
    made = Noise(seed, first, device)
    call = Call((eps if num_samples is None else eps[0],), torch.Size(shape), len(shape))
    tiling = call.divide(noise_first=made.first, noise_samples=num_samples or 1)
    call.programs *= num_samples or 1
    call.run(
        noise_kernel, eps, call.rows, call.cols, call.tiles, *made.arguments, made.mode(tiling),
        tiling,
    )  # fmt: skip
    return eps
