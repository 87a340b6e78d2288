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
from vae_fast._backends import SEEN_THROUGH, reference
from vae_fast._backends.reference import compute_dtype, grad_kl
from vae_fast._storage import UnreadableError, require_memory
from vae_fast.autograd import (
    apply_of,
    gradients,
    is_differentiated,
    is_watched,
)
from vae_fast.autograd.dispatched import Dispatched, register_backward, register_forward
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
            and isinstance(backend, ModuleType) and backend is not reference
        )  # fmt: skip
        loss, log_likelihood, *gradients = backend.negative_elbo_forward(
            x, mean, logvar, kl, beta, reduction, event_dims, bounds,
            with_halves(needs, mean, logvar, event_dims) if one_pass else _NONE,
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
        if ctx.gradients is not None and not torch.is_grad_enabled():
            try:
                ctx.backend.scale_(without_gaps(ctx.gradients), grad_loss)
            except UnreadableError:  # before anything has been scaled
                pass
            else:
                made, ctx.gradients = ctx.gradients, None
                return None, *made, None, None, None, None, None
        *inputs, kl = ctx.saved_tensors
        needs, needs_kl = ctx.needs_input_grad[:3], ctx.needs_input_grad[3]
        made = (None, None, None)
        if any(needs):
            made = gradients(
                ctx.backend, "negative_elbo_backward", (grad_loss,), tuple(inputs), ctx.options,
                needs, ctx.options[1], mean=1,
            )  # fmt: skip
        require_memory(grad_loss, kl)
        by_kl = grad_kl(grad_loss, kl, ctx.beta, ctx.options[0]) if needs_kl else None
        return *made, by_kl, None, None, None, None, None


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
    given_beta = beta if isinstance(beta, Tensor) else None
    require_memory(given_beta)
    if is_watched(backend, x, mean, logvar, kl, given_beta):
        if backend in SEEN_THROUGH:
            loss, log_likelihood = reference.negative_elbo(
                x, mean, logvar, kl, beta, reduction, event_dims, bounds
            )
            return loss, log_likelihood.detach()
        if isinstance(beta, Tensor):  # a copy, which nobody else writes to
            beta = beta.to(mean.device, torch.float64, copy=True)
        else:  # a product: the compiler leaves a float open if it multiplies, and burns in others
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
    dtype = compute_dtype(x, mean, logvar, kl)
    loss_shape = kl.shape if reduction == "none" else ()
    return [kl.new_empty(shape, dtype=dtype) for shape in (loss_shape, kl.shape)]


_INPUTS = "Tensor x, Tensor mean, Tensor? logvar"
_OPTIONS = "str reduction, int event_dims, float[] bounds"
_ARGUMENTS = f"{_INPUTS}, Tensor kl, Tensor beta, {_OPTIONS}"


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    # No gradient is asked of it: whoever traces takes two passes.
    return _backends.get(arguments[-1]).negative_elbo_forward(*arguments[:-1], _NONE)[:2]


_op = register_forward("negative_elbo", _ARGUMENTS, "(Tensor, Tensor)", _apply, _fake, _forward)
register_backward(
    "negative_elbo_backward", f"Tensor grad_loss, {_INPUTS}, {_OPTIONS}", ("x", "mean", "logvar")
)
