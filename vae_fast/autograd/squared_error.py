"""Autograd of ``squared_error``.

Its gradients are those of ``gaussian_log_likelihood`` at unit variance, times -2.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._backends import reference
from vae_fast._backends.reference import compute_dtype
from vae_fast._storage import require_memory
from vae_fast.autograd import apply_of, backward_backend, sees_through, uses_dispatcher
from vae_fast.autograd.dispatched import Dispatched, register_forward

_ARGUMENTS = "Tensor x, Tensor mean, int event_dims"
_NO_BOUNDS = (0.0, 0.0)  # without a log-variance there is nothing to clamp


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
        x, mean = ctx.saved_tensors
        needs = ctx.needs_input_grad[:2]
        backend = backward_backend(ctx.backend, (gradient,), (x, mean))
        require_memory(gradient)
        *gradients, _ = backend.gaussian_log_likelihood_backward(
            -2 * gradient, x, mean, None, ctx.event_dims, _NO_BOUNDS, (*needs, False)
        )
        return *gradients, None, None


_apply = apply_of(SquaredError)


def squared_error(x: Tensor, mean: Tensor, event_dims: int, backend: str) -> Tensor:
    traced = uses_dispatcher(x, mean)
    if sees_through(backend, traced):
        return reference.squared_error_forward(x, mean, event_dims)
    if traced:
        return _op(x, mean, event_dims, backend)
    return _apply(x, mean, event_dims, _backends.get(backend))


def _fake(x: Tensor, mean: Tensor, event_dims: int, _backend: str) -> Tensor:
    return mean.new_empty(mean.shape[: mean.dim() - event_dims], dtype=compute_dtype(x, mean))


_op = register_forward("squared_error", _ARGUMENTS, "Tensor", _apply, _fake)
