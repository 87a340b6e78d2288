"""``vae_fast::noise`` and the drawing of seeds, as the compiler sees them, without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast._backends import SEEN_THROUGH, reference
from vae_fast.autograd import is_watched
from vae_fast.autograd.dispatched import register


def _run(
    shape: list[int],
    event_dims: int,
    num_samples: int | None,
    seed: Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: str,
    backend: str,
) -> Tensor:
    return _backends.get(backend).noise(
        tuple(shape), event_dims, num_samples, seed, row_offset, dtype, torch.device(device)
    )


def _fake(
    shape: list[int],
    event_dims: int,
    num_samples: int | None,
    seed: Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: str,
    backend: str,
) -> Tensor:
    full = shape if num_samples is None else [num_samples, *shape]
    return torch.empty(full, dtype=dtype, device=device)


# The device by name: torch.jit.trace records none.
_noise_op = register(
    "noise",
    "(SymInt[] shape, int event_dims, SymInt? num_samples, Tensor seed, SymInt row_offset, "
    "ScalarType dtype, str device, str backend) -> Tensor",
    _run,
    _fake,
)

# The tag keeps the compiler from merging two draws, or from drawing again in the backward pass. By
# the tensor, whose device is meant, it knows whose generator a recomputed forward pass sets back.
_draw_seed_op = register(
    "draw_seed",
    "(Tensor like) -> Tensor",
    lambda like: _seed.draw_tensor(like.device, None),
    lambda like: torch.empty((), dtype=torch.int64, device=like.device),
    tags=(torch.Tag.nondeterministic_seeded,),
)


def draw_seed(
    like: Tensor, generator: torch.Generator | None, watched: bool = True
) -> int | Tensor:
    """``_seed.draw`` for noise on the device of ``like``, by steps that whoever traces the call
    can record, or vmap map over; ``watched``: False where the caller knows that nobody does."""
    if not watched:
        return _seed.draw(like.device, generator)
    if generator is not None and _backends.is_recorded():
        raise ValueError(
            "generator must be None where a program is recorded, which would hold its state; pass "
            "a seed as a tensor, and draw it outside"
        )
    if torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active():
        return _seed.draw_traced(like.device, generator)
    if generator is None and is_watched(None, (like,)):
        return _draw_seed_op(like)
    return _seed.draw(like.device, generator)


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
    if is_watched(backend, ()):
        if backend in SEEN_THROUGH:
            return reference.noise(shape, event_dims, num_samples, seed, row_offset, dtype, device)
        seed = _seed.to_tensor(seed, device)
        return _noise_op(
            shape, event_dims, num_samples, seed, row_offset, dtype, str(device), backend
        )
    return _backends.get(backend).noise(
        shape, event_dims, num_samples, seed, row_offset, dtype, device
    )
