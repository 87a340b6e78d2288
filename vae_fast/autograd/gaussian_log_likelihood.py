"""Autograd of ``gaussian_log_likelihood``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._backends import reference
from vae_fast._backends.reference import compute_dtype
from vae_fast.autograd import apply_of, backward_backend, sees_through, uses_dispatcher
from vae_fast.autograd.dispatched import Dispatched, register_backward, register_forward
from vae_fast.autograd.halves import gradient_needs

_ARGUMENTS = "Tensor x, Tensor mean, Tensor? logvar, int event_dims, float[] bounds"


class GaussianLogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        logvar: Tensor | None,
        event_dims: int,
        bounds: tuple[float, float],
        backend: ModuleType | Dispatched,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, logvar)
        ctx.options, ctx.backend = (event_dims, bounds), backend
        return backend.gaussian_log_likelihood_forward(x, mean, logvar, event_dims, bounds)

    @staticmethod
    def backward(ctx: Any, grad_ll: Tensor) -> Any:
        inputs = ctx.saved_tensors
        backend = backward_backend(ctx.backend, (grad_ll,), inputs)
        needs = gradient_needs(backend, ctx.needs_input_grad[:3], inputs, ctx.options[0], first=1)
        gradients = backend.gaussian_log_likelihood_backward(grad_ll, *inputs, *ctx.options, needs)
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
    traced = uses_dispatcher(x, mean, logvar)
    if sees_through(backend, traced):
        return reference.gaussian_log_likelihood_forward(x, mean, logvar, event_dims, bounds)
    if traced:
        return _op(x, mean, logvar, event_dims, bounds, backend)
    return _apply(x, mean, logvar, event_dims, bounds, _backends.get(backend))


def _fake(
    x: Tensor, mean: Tensor, logvar: Tensor | None, event_dims: int, *_options: Any
) -> Tensor:
    dtype = compute_dtype(x, mean, logvar)
    return mean.new_empty(mean.shape[: mean.dim() - event_dims], dtype=dtype)


_op = register_forward("gaussian_log_likelihood", _ARGUMENTS, "Tensor", _apply, _fake)
register_backward(
    "gaussian_log_likelihood_backward", f"Tensor grad_ll, {_ARGUMENTS}", ("x", "mean", "logvar")
)
