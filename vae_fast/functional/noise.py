"""The noise by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import _backends, _checks
from vae_fast.autograd.noise import noise as _noise


def noise(
    shape: tuple[int, ...] | torch.Size,
    *,
    seed: int | Tensor,
    row_offset: int = 0,
    num_samples: int | None = None,
    event_dims: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    backend: str | None = None,
) -> Tensor:
    """The standard-normal noise that ``sample_kl`` draws for a ``mean`` of this shape.

    A pure function of the seed, the sample and the element: Philox4x32-10 and Box-Muller, the
    same on every backend and device within 4e-6, however a batch is split. It is made in float32,
    in float64 for float64, and rounded for half precision.

    Args:
        shape: ``[*batch, *event]``.
        seed, row_offset, num_samples, event_dims, backend: as in ``sample_kl``.
        dtype: float64, float32, float16 or bfloat16; default torch's.
        device: default torch's.

    Returns:
        ε, of ``shape``, behind L where ``num_samples`` is given.

    Raises:
        TypeError, ValueError, BackendUnavailableError: as ``sample_kl``.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box & Muller 1958.
    """
    shape = torch.Size([_checks.integer("shape", size) for size in shape])
    if any(size < 0 for size in shape):
        raise ValueError(f"shape must have sizes of at least 0; got {tuple(shape)}")
    event_dims = _checks.event_dims("shape", event_dims, shape)
    seed = _checks.seed(seed)
    row_offset = _checks.row_offset(row_offset, shape, event_dims)
    if num_samples is not None:
        num_samples = _checks.integer("num_samples", num_samples, 1, 2**32)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    _checks.dtype("dtype", dtype)
    # torch.get_default_device would end a compiled graph.
    device = torch.empty(0).device if device is None else torch.device(device)
    name = _backends.choose(backend, device)
    return _noise(tuple(shape), event_dims, num_samples, seed, row_offset, dtype, device, name)
