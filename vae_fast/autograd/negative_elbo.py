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
from vae_fast.autograd import apply_of, first_order, is_differentiated, uses_dispatcher
from vae_fast.autograd.dispatched import (
    Dispatched,
    fake_gradients,
    register_composed,
    register_function,
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
        backend: ModuleType | Dispatched,
    ) -> tuple[Tensor, Tensor]:
        needs_x, needs = ctx.needs_input_grad[0], ctx.needs_input_grad[1:4]
        dtypes = (mean.dtype, kl.dtype, mean.dtype if logvar is None else logvar.dtype)
        one_pass = (
            any(needs) and not needs_x and reduction != "none" and torch.float16 not in dtypes
            and not isinstance(backend, Dispatched)
        )  # fmt: skip
        loss, log_likelihood, *gradients = backend.negative_elbo_forward(
            x, mean, logvar, kl, beta, reduction, event_dims, bounds,
            with_halves(backend, needs, mean, logvar, event_dims) if one_pass else _NONE,
        )  # fmt: skip
        ctx.save_for_backward(x, mean, logvar, kl)
        ctx.gradients = gradients[0] if one_pass else None
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
                    with_halves(backend, needs, mean, logvar, ctx.options[1], first=1),
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
        # A product: the compiler leaves a float open if it multiplies, and burns in others. Of a
        # tensor it is one that nobody else writes to.
        beta = torch.ones((), dtype=torch.float64, device=mean.device) * beta
        return _op(x, mean, logvar, kl, beta, reduction, event_dims, bounds, backend)
    if not is_differentiated(x, mean, logvar, kl):
        return _backends.get(backend).negative_elbo_forward(
            x, mean, logvar, kl, beta, reduction, event_dims, bounds, _NONE
        )[:2]
    if isinstance(beta, Tensor):  # the backward pass needs today's value, whatever comes later
        beta = beta.clone() if beta.device.type != "cpu" else beta.item()
    return _apply(x, mean, logvar, kl, beta, reduction, event_dims, bounds, _backends.get(backend))


def _fake(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    kl: Tensor,
    beta: Tensor,
    reduction: str,
    *_options: Any,
) -> list[Tensor]:
    loss_shape = kl.shape if reduction == "none" else ()
    return [
        kl.new_empty(loss_shape, dtype=compute_dtype(x, mean, logvar, kl)),
        kl.new_empty(kl.shape, dtype=compute_dtype(x, mean, logvar)),
    ]


_INPUTS = "Tensor x, Tensor mean, Tensor? logvar"
_OPTIONS = "str reduction, int event_dims, float[] bounds"
_ARGUMENTS = f"{_INPUTS}, Tensor kl, Tensor beta, {_OPTIONS}"
_op = register_composed(
    "negative_elbo",
    f"({_ARGUMENTS}, str backend) -> (Tensor, Tensor)",
    lambda *arguments: _apply(*arguments[:-1], Dispatched(arguments[-1])),
)
# No gradient is ever asked of it: whoever traces takes two passes.
register_function("negative_elbo_forward", f"{_ARGUMENTS}, bool[] needs", "Tensor[]", _fake)
register_function(
    "negative_elbo_backward",
    f"Tensor grad_loss, {_INPUTS}, {_OPTIONS}, bool[] needs",
    "Tensor[]",
    fake_gradients(1, 3),
)
