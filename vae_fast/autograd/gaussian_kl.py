"""Autograd of ``gaussian_kl``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._backends import SEEN_THROUGH, reference
from vae_fast._backends.reference import compute_dtype
from vae_fast._control import KLControl
from vae_fast.autograd import apply_of, gradients, is_watched
from vae_fast.autograd.dispatched import Dispatched, register_backward, register_forward

_ARGUMENTS = (
    "Tensor mean, Tensor logvar, Tensor? prior_mean, Tensor? prior_logvar, int event_dims, "
    "float[] bounds, float[] control"
)


class GaussianKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        logvar: Tensor,
        prior_mean: Tensor | None,
        prior_logvar: Tensor | None,
        options: tuple[Any, ...],  # from event_dims to the control, as the backend takes them
        backend: ModuleType | Dispatched,
    ) -> Tensor:
        inputs = (mean, logvar, prior_mean, prior_logvar)
        ctx.save_for_backward(*inputs)
        ctx.options, ctx.backend = options, backend
        return backend.gaussian_kl_forward(*inputs, *options)

    @staticmethod
    def backward(ctx: Any, grad_kl: Tensor) -> Any:
        made = gradients(
            ctx.backend, "gaussian_kl_backward", (grad_kl,), ctx.saved_tensors, ctx.options,
            ctx.needs_input_grad[:4], ctx.options[0],
        )  # fmt: skip
        return *made, None, None


_apply = apply_of(GaussianKL)


def gaussian_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
    backend: str,
) -> Tensor:
    inputs = (mean, logvar, prior_mean, prior_logvar)
    if is_watched(backend, *inputs):
        if backend in SEEN_THROUGH:
            return reference.gaussian_kl_forward(*inputs, event_dims, bounds, control)
        return _op(*inputs, event_dims, bounds, control, backend)
    return _apply(*inputs, (event_dims, bounds, control), _backends.get(backend))


def _applied(*arguments: Any) -> Tensor:
    *inputs_and_options, backend = arguments
    return _apply(*inputs_and_options[:4], tuple(inputs_and_options[4:]), backend)


def _fake(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    *_options: Any,
) -> Tensor:
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    return mean.new_empty(mean.shape[: mean.dim() - event_dims], dtype=dtype)


_op = register_forward("gaussian_kl", _ARGUMENTS, "Tensor", _applied, _fake)
register_backward(
    "gaussian_kl_backward",
    f"Tensor grad_kl, {_ARGUMENTS}",
    ("mean", "logvar", "prior_mean", "prior_logvar"),
)
