"""``vae_fast::noise`` and the drawing of seeds, as the compiler sees them, without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast.autograd import uses_dispatcher
from vae_fast.autograd.dispatched import register


def _run(
    shape: list[int],
    event_dims: int,
    num_samples: int | None,
    seed: Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: torch.device,
    backend: str,
) -> Tensor:
    return _backends.get(backend).noise(
        tuple(shape), event_dims, num_samples, seed, row_offset, dtype, device
    )


def _fake(
    shape: list[int],
    event_dims: int,
    num_samples: int | None,
    seed: Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: torch.device,
    backend: str,
) -> Tensor:
    full = shape if num_samples is None else [num_samples, *shape]
    return torch.empty(full, dtype=dtype, device=device)


_noise_op = register(
    "noise",
    "(SymInt[] shape, int event_dims, SymInt? num_samples, Tensor seed, SymInt row_offset, "
    "ScalarType dtype, Device device, str backend) -> Tensor",
    _run,
    _fake,
)

# The tag keeps the compiler from merging two draws, or from drawing again in the backward pass.
_draw_seed_op = register(
    "draw_seed",
    "(Device device) -> Tensor",
    lambda device: _seed.draw_tensor(device, None),
    lambda device: torch.empty((), dtype=torch.int64, device=device),
    tags=(torch.Tag.nondeterministic_seeded,),
)


def draw_seed(device: torch.device, generator: torch.Generator | None) -> int | Tensor:
    """``_seed.draw``, as an op where someone traces the call."""
    if generator is None and uses_dispatcher():
        return _draw_seed_op(device)
    return _seed.draw(device, generator)


def noise(
    shape: tuple[int, ...],
    event_dims: int,
    num_samples: int | None,
    seed: int | Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: torch.device,
    backend: str,
) -> Tensor:
    if uses_dispatcher():
        seed = _seed.to_tensor(seed, device)
        return _noise_op(shape, event_dims, num_samples, seed, row_offset, dtype, device, backend)
    return _backends.get(backend).noise(
        shape, event_dims, num_samples, seed, row_offset, dtype, device
    )
