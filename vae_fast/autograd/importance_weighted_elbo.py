"""Autograd of ``importance_weighted_elbo``: the weights of the forward pass are its gradient."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._backends.reference import compute_dtype
from vae_fast.autograd import (
    apply_of,
    first_order,
    register,
    register_backward,
    uses_dispatcher,
)


def _gradient(grad_bound: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    return (grad_bound * weights).to(dtype)  # one pass, which plain PyTorch does as well


class ImportanceWeightedELBO(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_weights: Tensor, backend: ModuleType) -> tuple[Tensor, Tensor]:
        bound, weights = backend.importance_weighted_elbo_forward(log_weights)
        ctx.save_for_backward(log_weights, weights)
        ctx.mark_non_differentiable(weights)
        ctx.set_materialize_grads(False)
        return bound, weights

    @staticmethod
    def backward(ctx: Any, grad_bound: Tensor | None, _grad_weights: Tensor | None) -> Any:
        if grad_bound is None:
            return None, None
        log_weights, weights = ctx.saved_tensors
        gradient = _gradient(grad_bound, weights, log_weights.dtype)
        if torch.is_grad_enabled():
            op = "importance_weighted_elbo"
            (gradient,) = first_order(op, (gradient,), grad_bound, log_weights)  # type: ignore[assignment]
        return gradient, None


_apply = apply_of(ImportanceWeightedELBO)


def importance_weighted_elbo(log_weights: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    if uses_dispatcher(log_weights):
        return _op(log_weights, backend)
    return _apply(log_weights, _backends.get(backend))


def _run(log_weights: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return _backends.get(backend).importance_weighted_elbo_forward(log_weights)


def _fake(log_weights: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(log_weights)
    return (
        log_weights.new_empty(log_weights.shape[1:], dtype=dtype),
        log_weights.new_empty(log_weights.shape, dtype=dtype),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.dtype = inputs[0].dtype
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_bound: Tensor, _grad_weights: Tensor) -> Any:
    return _backward_op(grad_bound, ctx.saved_tensors[0], ctx.dtype), None


def _fake_backward(grad_bound: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
    return weights.new_empty(weights.shape, dtype=dtype)


_op = register(
    "importance_weighted_elbo",
    "(Tensor log_weights, str backend) -> (Tensor, Tensor)",
    _run,
    _fake,
)
_op.register_autograd(_backward, setup_context=_setup_context)
# An op, so that a second derivative is refused: the weights are constants to autograd.
_backward_op = register_backward(
    "importance_weighted_elbo_backward",
    "(Tensor grad_bound, Tensor weights, ScalarType dtype) -> Tensor",
    _gradient,
    _fake_backward,
)
