"""Autograd of ``sample_kl``: the noise is made again from the seed, so only the inputs are kept."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast._backends import SEEN_THROUGH, reference
from vae_fast._backends.reference import compute_dtype
from vae_fast._control import KLControl
from vae_fast.autograd import apply_of, gradients, is_watched
from vae_fast.autograd.dispatched import Dispatched, register_backward, register_forward
from vae_fast.autograd.noise import draw_seed

_ARGUMENTS = (
    "Tensor mean, Tensor logvar, Tensor? prior_mean, Tensor? prior_logvar, Tensor? eps, "
    "Tensor? seed, SymInt? num_samples, int event_dims, SymInt row_offset, float[] bounds, "
    "float[] control"
)


class SampleKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        logvar: Tensor,
        prior_mean: Tensor | None,
        prior_logvar: Tensor | None,
        eps: Tensor | None,
        options: tuple[Any, ...],  # from the seed to the control, as the backend takes them
        return_dims: bool,
        backend: ModuleType | Dispatched,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.save_for_backward(mean, logvar, prior_mean, prior_logvar, eps)
        ctx.options, ctx.backend = options, backend
        ctx.set_materialize_grads(False)
        return backend.sample_kl_forward(
            mean, logvar, prior_mean, prior_logvar, eps, *options, return_dims
        )

    @staticmethod
    def backward(
        ctx: Any, grad_z: Tensor | None, grad_kl: Tensor | None, grad_dims: Tensor | None = None
    ) -> Any:
        made = gradients(
            ctx.backend, "sample_kl_backward", (grad_z, grad_kl, grad_dims), ctx.saved_tensors,
            ctx.options, ctx.needs_input_grad[:4], ctx.options[2],
        )  # fmt: skip
        return *made, None, None, None, None


_apply = apply_of(SampleKL)


def sample_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor | None,
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    bounds: tuple[float, float],
    control: KLControl,
    return_dims: bool,
    backend: str,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    inputs = (mean, logvar, prior_mean, prior_logvar, eps)
    watched = is_watched(backend, *inputs, seed if isinstance(seed, Tensor) else None)
    drawn = eps is None and seed is None  # for this call: nobody else has it
    if drawn:
        seed = draw_seed(mean, generator, watched)
    if watched:
        if backend in SEEN_THROUGH:
            return reference.sample_kl_forward(
                *inputs, seed, num_samples, event_dims, row_offset, bounds, control, return_dims
            )
        seed = _seed.kept_tensor(seed, mean.device, drawn)
        z, kl, *dims = _op(
            *inputs, seed, num_samples, event_dims, row_offset, bounds, control, return_dims,
            backend,
        )  # fmt: skip
        return z, kl, dims[0] if return_dims else None
    seed = seed if drawn else _seed.kept(seed)
    options = (seed, num_samples, event_dims, row_offset, bounds, control)
    return _apply(*inputs, options, return_dims, _backends.get(backend))


def _applied(*arguments: Any) -> list[Tensor]:
    *inputs_and_options, return_dims, backend = arguments
    inputs, options = inputs_and_options[:5], tuple(inputs_and_options[5:])
    made = _apply(*inputs, options, return_dims, backend)
    return [tensor for tensor in made if tensor is not None]


def _fake(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor | None,
    seed: Tensor | None,
    num_samples: int | None,
    event_dims: int,
    *options: Any,
) -> list[Tensor]:
    shape = mean.shape if num_samples is None else (num_samples, *mean.shape)
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    split, return_dims = mean.dim() - event_dims, options[-2]
    made = [mean.new_empty(shape), mean.new_empty(mean.shape[:split], dtype=dtype)]
    if return_dims:
        made.append(mean.new_empty(mean.shape[split:], dtype=dtype))
    return made


_op = register_forward("sample_kl", f"{_ARGUMENTS}, bool return_dims", "Tensor[]", _applied, _fake)
register_backward(
    "sample_kl_backward",
    f"Tensor? grad_z, Tensor? grad_kl, Tensor? grad_dims, {_ARGUMENTS}",
    ("mean", "logvar", "prior_mean", "prior_logvar"),
)
