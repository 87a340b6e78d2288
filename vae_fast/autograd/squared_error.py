"""Autograd of ``squared_error``.

Its gradients are those of ``gaussian_log_likelihood`` at unit variance, times -2.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._backends import SEEN_THROUGH, reference
from vae_fast._backends.reference import compute_dtype
from vae_fast.autograd import apply_of, gradients, is_watched
from vae_fast.autograd.dispatched import Dispatched, register_backward, register_forward

_ARGUMENTS = "Tensor x, Tensor mean, int event_dims"


class SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mean: Tensor, event_dims: int, backend: ModuleType | Dispatched
    ) -> Tensor:
        ctx.save_for_backward(x, mean)
        ctx.event_dims, ctx.backend = event_dims, backend
        return backend.squared_error_forward(x, mean, event_dims)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        made = gradients(
            ctx.backend, "squared_error_backward", (gradient,), ctx.saved_tensors,
            (ctx.event_dims,), ctx.needs_input_grad[:2], None,
        )  # fmt: skip
        return *made, None, None


_apply = apply_of(SquaredError)


def squared_error(x: Tensor, mean: Tensor, event_dims: int, backend: str) -> Tensor:
    if is_watched(backend, x, mean):
        if backend in SEEN_THROUGH:
            return reference.squared_error_forward(x, mean, event_dims)
        return _op(x, mean, event_dims, backend)
    return _apply(x, mean, event_dims, _backends.get(backend))


def _fake(x: Tensor, mean: Tensor, event_dims: int, _backend: str) -> Tensor:
    return mean.new_empty(mean.shape[: mean.dim() - event_dims], dtype=compute_dtype(x, mean))


_op = register_forward("squared_error", _ARGUMENTS, "Tensor", _apply, _fake)
register_backward("squared_error_backward", f"Tensor gradient, {_ARGUMENTS}", ("x", "mean"))
