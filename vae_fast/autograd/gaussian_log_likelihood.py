"""Autograd of ``gaussian_log_likelihood``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._backends.reference import compute_dtype
from vae_fast.autograd import (
    apply_of,
    asked_for,
    backward_runner,
    fake_gradients,
    first_order,
    register,
    register_backward,
    runner,
    uses_dispatcher,
)
from vae_fast.autograd.halves import with_halves

_ARGUMENTS = (
    "Tensor x, Tensor mean, Tensor? logvar, int event_dims, float logvar_min, float logvar_max, "
    "str backend"
)


class GaussianLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        logvar: Tensor | None,
        event_dims: int,
        bounds: tuple[float, float],
        backend: ModuleType,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, logvar)
        ctx.options, ctx.backend = (event_dims, bounds), backend
        return backend.gaussian_log_likelihood_forward(x, mean, logvar, event_dims, bounds)

    @staticmethod
    def backward(ctx: Any, grad_ll: Tensor) -> Any:
        inputs = ctx.saved_tensors
        needs = with_halves(ctx.needs_input_grad[:3], inputs[1], inputs[2], ctx.options[0], first=1)
        gradients = ctx.backend.gaussian_log_likelihood_backward(
            grad_ll, *inputs, *ctx.options, needs
        )
        if torch.is_grad_enabled():
            gradients = first_order("gaussian_log_likelihood", gradients, grad_ll, *inputs)
        return *gradients, None, None, None


_apply = apply_of(GaussianLogLikelihood)


def gaussian_log_likelihood(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    backend: str,
) -> Tensor:
    if uses_dispatcher(x, mean, logvar):
        return _log_likelihood_op(x, mean, logvar, event_dims, *bounds, backend)
    return _apply(x, mean, logvar, event_dims, bounds, _backends.get(backend))


def _fake(
    x: Tensor, mean: Tensor, logvar: Tensor | None, event_dims: int, *_options: Any
) -> Tensor:
    dtype = compute_dtype(x, mean, logvar)
    return mean.new_empty(mean.shape[: mean.dim() - event_dims], dtype=dtype)


def _fake_backward(grad_ll: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return fake_gradients(arguments[-1], (grad_ll,), arguments[:3])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _backward(ctx: Any, grad_ll: Tensor) -> Any:
    needs = [bool(need) for need in ctx.needs_input_grad[:3]]
    gradients = _log_likelihood_backward_op(grad_ll, *ctx.saved_tensors, *ctx.options, needs)
    return *asked_for(needs, gradients), *(None,) * len(ctx.options)


_log_likelihood_op = register(
    "gaussian_log_likelihood",
    f"({_ARGUMENTS}) -> Tensor",
    runner("gaussian_log_likelihood_forward"),
    _fake,
)
_log_likelihood_op.register_autograd(_backward, setup_context=_setup_context)
_log_likelihood_backward_op = register_backward(
    "gaussian_log_likelihood_backward",
    f"(Tensor grad_ll, {_ARGUMENTS}, bool[] needs) -> (Tensor, Tensor, Tensor)",
    backward_runner("gaussian_log_likelihood_backward"),
    _fake_backward,
)
