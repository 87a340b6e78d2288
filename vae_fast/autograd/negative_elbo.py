"""Autograd of ``negative_elbo``.

For a scalar loss the forward pass makes the gradients for an upstream gradient of 1; the first
backward pass scales them in place by what arrives, and hands them over. A second one (a retained
graph) takes the two-pass form, since the first one's tensors are no longer ours.

Compiled callers take two passes: scaling cannot be in place there, and one pass and a pass of
scaling read and write 9 units where two passes do 8.
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
    asked_for,
    backward_runner,
    fake_gradients,
    first_order,
    register,
    register_backward,
    uses_dispatcher,
)
from vae_fast.autograd.halves import with_halves, without_gaps

_NONE = (False, False, False)  # gradients by mean, logvar and kl


class NegativeELBO(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        logvar: Tensor | None,
        kl: Tensor,
        beta: float | Tensor,
        reduction: str,
        event_dims: int,
        bounds: tuple[float, float],
        backend: ModuleType,
    ) -> tuple[Tensor, Tensor]:
        needs_x, needs = ctx.needs_input_grad[0], ctx.needs_input_grad[1:4]
        dtypes = (mean.dtype, kl.dtype, mean.dtype if logvar is None else logvar.dtype)
        one_pass = (
            any(needs) and not needs_x and reduction != "none" and torch.float16 not in dtypes
        )
        loss, log_likelihood, gradients = backend.negative_elbo_forward(
            x, mean, logvar, kl, beta, reduction, event_dims, bounds,
            with_halves(needs, mean, logvar, event_dims) if one_pass else _NONE,
        )  # fmt: skip
        ctx.save_for_backward(x, mean, logvar, kl)
        ctx.gradients = gradients if one_pass else None
        ctx.beta, ctx.backend = beta, backend
        ctx.options = (reduction, event_dims, bounds)
        ctx.mark_non_differentiable(log_likelihood)
        ctx.set_materialize_grads(False)
        return loss, log_likelihood

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, _grad_ll: Tensor | None) -> Any:
        if grad_loss is None:
            return (None,) * 9
        x, mean, logvar, kl = ctx.saved_tensors
        backend = ctx.backend
        if ctx.gradients is not None:
            gradients = (None, *ctx.gradients)
            ctx.gradients = None
            backend.scale_(without_gaps(gradients[1:]), grad_loss)
        else:
            needs, needs_kl = ctx.needs_input_grad[:3], ctx.needs_input_grad[3]
            gradients = (None, None, None)
            if any(needs):
                gradients = backend.negative_elbo_backward(
                    grad_loss, x, mean, logvar, *ctx.options,
                    with_halves(needs, mean, logvar, ctx.options[1], first=1),
                )  # fmt: skip
            grad_kl = _grad_kl(grad_loss, kl, ctx.beta, ctx.options[0]) if needs_kl else None
            gradients = (*gradients, grad_kl)
        if torch.is_grad_enabled():
            gradients = first_order("negative_elbo", gradients, grad_loss, x, mean, logvar)
        return *gradients, None, None, None, None, None


def _grad_kl(grad_loss: Tensor, kl: Tensor, beta: float | Tensor, reduction: str) -> Tensor:
    scale = beta / max(kl.numel(), 1) if reduction == "mean" else beta
    gradient = grad_loss * scale
    # A hook may write to it, so it is not an expanded view.
    return gradient.to(kl.dtype) if reduction == "none" else torch.empty_like(kl).fill_(gradient)


_apply = apply_of(NegativeELBO)


def negative_elbo(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    kl: Tensor,
    beta: float | Tensor,
    reduction: str,
    event_dims: int,
    bounds: tuple[float, float],
    backend: str,
) -> tuple[Tensor, Tensor]:
    if uses_dispatcher(x, mean, logvar, kl):
        if not isinstance(beta, Tensor):
            # A product: the compiler leaves a float open if it multiplies, and burns in others.
            beta = torch.ones((), dtype=torch.float64, device=mean.device) * beta
        return _negative_elbo_op(x, mean, logvar, kl, beta, reduction, event_dims, *bounds, backend)
    if not torch.is_grad_enabled():
        return _backends.get(backend).negative_elbo_forward(
            x, mean, logvar, kl, beta, reduction, event_dims, bounds, _NONE
        )[:2]
    if isinstance(beta, Tensor):  # the backward pass needs today's value, whatever comes later
        beta = beta.clone() if beta.device.type != "cpu" else beta.item()
    return _apply(x, mean, logvar, kl, beta, reduction, event_dims, bounds, _backends.get(backend))


def _run(*arguments: Any) -> tuple[Tensor, Tensor]:
    *options, logvar_min, logvar_max, backend = arguments
    return _backends.get(backend).negative_elbo_forward(*options, (logvar_min, logvar_max), _NONE)[
        :2
    ]


def _fake(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    kl: Tensor,
    beta: Tensor,
    reduction: str,
    event_dims: int,
    *_options: Any,
) -> tuple[Tensor, Tensor]:
    loss_shape = kl.shape if reduction == "none" else ()
    return (
        kl.new_empty(loss_shape, dtype=compute_dtype(x, mean, logvar, kl)),
        kl.new_empty(kl.shape, dtype=compute_dtype(x, mean, logvar)),
    )


def _fake_backward(grad_loss: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return fake_gradients(arguments[-1], (grad_loss,), arguments[:3])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, mean, logvar, kl, beta = inputs[:5]
    ctx.save_for_backward(x, mean, logvar, kl, beta)
    ctx.options = inputs[5:]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_loss: Tensor, _grad_ll: Tensor) -> Any:
    x, mean, logvar, kl, beta = ctx.saved_tensors
    reduction = ctx.options[0]
    needs = [bool(need) for need in ctx.needs_input_grad[:4]]
    gradients: tuple[Tensor | None, ...] = (None, None, None)
    if any(needs[:3]):
        gradients = asked_for(
            needs[:3],
            _negative_elbo_backward_op(grad_loss, x, mean, logvar, *ctx.options, needs[:3]),
        )
    grad_kl = _grad_kl(grad_loss, kl, beta, reduction) if needs[3] else None
    return *gradients, grad_kl, None, *(None,) * len(ctx.options)


_negative_elbo_op = register(
    "negative_elbo",
    "(Tensor x, Tensor mean, Tensor? logvar, Tensor kl, Tensor beta, str reduction, "
    "int event_dims, float logvar_min, float logvar_max, str backend) -> (Tensor, Tensor)",
    _run,
    _fake,
)
_negative_elbo_op.register_autograd(_backward, setup_context=_setup_context)
_negative_elbo_backward_op = register_backward(
    "negative_elbo_backward",
    "(Tensor grad_loss, Tensor x, Tensor mean, Tensor? logvar, str reduction, int event_dims, "
    "float logvar_min, float logvar_max, str backend, bool[] needs) -> (Tensor, Tensor, Tensor)",
    backward_runner("negative_elbo_backward"),
    _fake_backward,
)
