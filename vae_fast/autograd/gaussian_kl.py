"""Autograd of ``gaussian_kl``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._backends.reference import compute_dtype
from vae_fast._control import KLControl
from vae_fast.autograd import (
    apply_of,
    as_tensors,
    asked_for,
    fake_gradients,
    first_order,
    register,
    register_backward,
    uses_dispatcher,
    with_control,
)
from vae_fast.autograd.halves import with_halves

_ARGUMENTS = (
    "Tensor mean, Tensor logvar, Tensor? prior_mean, Tensor? prior_logvar, int event_dims, "
    "float logvar_min, float logvar_max, float floor, float posterior_weight, float prior_weight"
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
        backend: ModuleType,
    ) -> Tensor:
        inputs = (mean, logvar, prior_mean, prior_logvar)
        ctx.save_for_backward(*inputs)
        ctx.options, ctx.backend = options, backend
        return backend.gaussian_kl_forward(*inputs, *options)

    @staticmethod
    def backward(ctx: Any, grad_kl: Tensor) -> Any:
        inputs = ctx.saved_tensors
        needs = with_halves(ctx.needs_input_grad[:4], inputs[0], inputs[1], ctx.options[0])
        gradients = ctx.backend.gaussian_kl_backward(grad_kl, *inputs, *ctx.options, needs)
        if torch.is_grad_enabled():
            gradients = first_order("gaussian_kl", gradients, grad_kl, *inputs)
        return *gradients, None, None


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
    if uses_dispatcher(*inputs):
        return _gaussian_kl_op(*inputs, event_dims, *bounds, *control, backend)
    return _apply(*inputs, (event_dims, bounds, control), _backends.get(backend))


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


def _fake_backward(grad_kl: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return fake_gradients(arguments[-1], (grad_kl,), arguments[:4])


def _run(*arguments: Any) -> Tensor:
    *inputs, backend = arguments
    return _backends.get(backend).gaussian_kl_forward(*with_control(inputs))


def _run_backward(*arguments: Any) -> tuple[Tensor, ...]:
    *inputs, backend, needs = arguments
    gradients = _backends.get(backend).gaussian_kl_backward(*with_control(inputs), tuple(needs))
    return as_tensors(gradients, inputs)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _backward(ctx: Any, grad_kl: Tensor) -> Any:
    needs = [bool(need) for need in ctx.needs_input_grad[:4]]
    gradients = _gaussian_kl_backward_op(grad_kl, *ctx.saved_tensors, *ctx.options, needs)
    return *asked_for(needs, gradients), *(None,) * len(ctx.options)


_gaussian_kl_op = register("gaussian_kl", f"({_ARGUMENTS}, str backend) -> Tensor", _run, _fake)
_gaussian_kl_op.register_autograd(_backward, setup_context=_setup_context)
_gaussian_kl_backward_op = register_backward(
    "gaussian_kl_backward",
    f"(Tensor grad_kl, {_ARGUMENTS}, str backend, bool[] needs) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
