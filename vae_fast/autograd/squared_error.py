"""Autograd of ``squared_error``.

Its gradients are those of ``gaussian_log_likelihood`` at unit variance, times -2.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._backends.reference import compute_dtype
from vae_fast.autograd import (
    apply_of,
    as_tensors,
    asked_for,
    fake_gradients,
    first_order,
    register,
    register_backward,
    uses_dispatcher,
)

_ARGUMENTS = "Tensor x, Tensor mean, int event_dims, str backend"
_NO_BOUNDS = (0.0, 0.0)  # without a log-variance there is nothing to clamp


def _gradients(
    backend: ModuleType,
    gradient: Tensor,
    x: Tensor,
    mean: Tensor,
    event_dims: int,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    made = backend.gaussian_log_likelihood_backward(
        -2 * gradient, x, mean, None, event_dims, _NO_BOUNDS, (*needs, False)
    )
    return tuple(made[:2])


class SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, event_dims: int, backend: ModuleType) -> Tensor:
        ctx.save_for_backward(x, mean)
        ctx.event_dims, ctx.backend = event_dims, backend
        return backend.squared_error_forward(x, mean, event_dims)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, mean = ctx.saved_tensors
        needs = ctx.needs_input_grad[:2]
        gradients = _gradients(ctx.backend, gradient, x, mean, ctx.event_dims, needs)
        if torch.is_grad_enabled():
            gradients = first_order("squared_error", gradients, gradient, x, mean)
        return *gradients, None, None


_apply = apply_of(SquaredError)


def squared_error(x: Tensor, mean: Tensor, event_dims: int, backend: str) -> Tensor:
    if uses_dispatcher(x, mean):
        return _squared_error_op(x, mean, event_dims, backend)
    return _apply(x, mean, event_dims, _backends.get(backend))


def _run(x: Tensor, mean: Tensor, event_dims: int, backend: str) -> Tensor:
    return _backends.get(backend).squared_error_forward(x, mean, event_dims)


def _fake(x: Tensor, mean: Tensor, event_dims: int, backend: str) -> Tensor:
    return mean.new_empty(mean.shape[: mean.dim() - event_dims], dtype=compute_dtype(x, mean))


def _run_backward(
    gradient: Tensor, x: Tensor, mean: Tensor, event_dims: int, backend: str, needs: list[bool]
) -> tuple[Tensor, ...]:
    gradients = _gradients(_backends.get(backend), gradient, x, mean, event_dims, tuple(needs))
    return as_tensors(gradients, (gradient,))


def _fake_backward(gradient: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return fake_gradients(arguments[-1], (gradient,), arguments[:2])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.options = inputs[2:]


def _backward(ctx: Any, gradient: Tensor) -> Any:
    needs = [bool(need) for need in ctx.needs_input_grad[:2]]
    gradients = _squared_error_backward_op(gradient, *ctx.saved_tensors, *ctx.options, needs)
    return *asked_for(needs, gradients), None, None


_squared_error_op = register("squared_error", f"({_ARGUMENTS}) -> Tensor", _run, _fake)
_squared_error_op.register_autograd(_backward, setup_context=_setup_context)
_squared_error_backward_op = register_backward(
    "squared_error_backward",
    f"(Tensor gradient, {_ARGUMENTS}, bool[] needs) -> (Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
