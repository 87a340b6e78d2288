"""What the formulas share: the type computed in, the sum of a row, the clamp, the noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 where any input is float64, else float32."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype is torch.float64:
            return torch.float64
    return torch.float32


def _multiply_high_low(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    product = a * b  # int64 holds the low 64 bits of the product of two 32-bit words
    return (product >> 32) & _MASK, product & _MASK


def philox4x32_10(counter: tuple[Tensor, ...], seed: int | Tensor) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al. 2011) on 32-bit words kept in int64 tensors."""
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        high0, low0 = _multiply_high_low(0xD2511F53, c0)
        high1, low1 = _multiply_high_low(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def _box_muller(word: Tensor, next_word: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    u, w = ((r.to(torch.float32) * 2.0**-32 + 2.0**-33).to(dtype) for r in (word, next_word))
    radius = torch.sqrt(-2 * torch.log(u))
    angle = 2 * math.pi * (w - torch.round(w))  # the reduction is exact: half the rounding error
    return radius * torch.cos(angle), radius * torch.sin(angle)


def noise(
    shape: tuple[int, ...],  # batch shape + event shape
    event_dims: int,
    num_samples: int | None,
    seed: int | Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: torch.device,
    sample_offset: int = 0,
) -> Tensor:  # shape, behind num_samples where that is given
    count = math.prod(shape)
    first = row_offset * math.prod(shape[len(shape) - event_dims :])
    offset = first % 4
    blocks = torch.arange((offset + count + 3) // 4, device=device)
    blocks = blocks + ((first // 4) & (2**62 - 1))
    samples = sample_offset + torch.arange(num_samples or 1, device=device)[:, None]
    counter = torch.broadcast_tensors(
        blocks & _MASK, blocks >> 32, samples, torch.zeros_like(blocks)
    )
    words = philox4x32_10(counter, seed)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    pairs = (*_box_muller(words[0], words[1], wide), *_box_muller(words[2], words[3], wide))
    # Chosen by index: whether a slice of them has gaps is what an open size cannot say.
    asked = offset + torch.arange(count, device=device)
    places = (asked & 3) * blocks.shape[0] + (asked >> 2)
    eps = torch.cat(pairs, dim=1).index_select(1, places).to(dtype)
    return eps.reshape(shape if num_samples is None else (num_samples, *shape))


def sum_event(terms: Tensor, event_dims: int) -> Tensor:
    return terms.flatten(terms.dim() - event_dims).sum(-1) if event_dims else terms


def over_event(values: Tensor, event_dims: int) -> Tensor:
    """A value a row [*batch], beside the elements [*batch, *event]."""
    return values.reshape(values.shape + (1,) * event_dims)


def clamped(logvar: Tensor, dtype: torch.dtype, bounds: tuple[float, float]) -> Tensor:
    return logvar.to(dtype).clamp(*bounds)


def unmoved(tensor: Tensor) -> Tensor:
    """Zeros, of infinities too, with the gradient of the tensor."""
    return (tensor - tensor.detach()).nan_to_num(0.0)


def noise_of(
    mean: Tensor,
    eps: Tensor | None,
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    dtype: torch.dtype,
    sample_offset: int = 0,
) -> Tensor:
    """The noise of samples from a Gaussian with this mean: as given, or the seed's."""
    if eps is not None:
        return eps.to(dtype)
    assert seed is not None
    return noise(
        tuple(mean.shape), event_dims, num_samples, seed, row_offset, dtype, mean.device,
        sample_offset,
    )  # fmt: skip
