"""Autograd of ``gaussian_log_likelihood``."""

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
        made = gradients(
            ctx.backend, "gaussian_log_likelihood_backward", (grad_ll,), ctx.saved_tensors,
            ctx.options, ctx.needs_input_grad[:3], ctx.options[0], mean=1,
        )  # fmt: skip
        return *made, None, None, None


_apply = apply_of(GaussianLogLikelihood)


def gaussian_log_likelihood(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    backend: str,
) -> Tensor:
    if is_watched(backend, x, mean, logvar):
        if backend in SEEN_THROUGH:
            return reference.gaussian_log_likelihood_forward(x, mean, logvar, event_dims, bounds)
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
