"""``negative_elbo`` to autograd.

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
from vae_fast.autograd import gradients, is_differentiated, is_watched, takes_kernels
from vae_fast.autograd.halves import with_halves, without_gaps
from vae_fast.autograd.op import FIRST, Inputs, Op, Options

_NONE = (False, False, False)  # gradients by mean, logvar and kl


class NegativeELBO(Op):
    name = "negative_elbo"
    inputs = "Tensor x, Tensor mean, Tensor? logvar, Tensor kl"
    options = "Tensor beta, str reduction, int event_dims, float[] bounds"
    returns = "(Tensor, Tensor)"
    learned = ("x", "mean", "logvar")
    backward_arguments = (
        "Tensor grad_loss, Tensor x, Tensor mean, Tensor? logvar, str reduction, int event_dims, "
        "float[] bounds"
    )

    def shapes(self, call: Any) -> tuple[Tensor, Tensor]:
        kl, dtype = call.kl, compute_dtype(call.x, call.mean, call.logvar, call.kl)
        loss = kl.shape if call.reduction == "none" else ()
        return kl.new_empty(loss, dtype=dtype), kl.new_empty(kl.shape, dtype=dtype)

    def forward(self, backend: Any, *arguments: Any) -> Any:
        return backend.negative_elbo_forward(*arguments, _NONE)[:2]

    def composed(self, inputs: Inputs, options: Options) -> tuple[Tensor, Tensor]:
        loss, log_likelihood = reference.negative_elbo(*inputs, *options)
        return loss, log_likelihood.detach()

    def run(
        self, ctx: Any, backend: Any, inputs: Inputs, options: Options
    ) -> tuple[Tensor, Tensor]:
        _, mean, logvar, kl = inputs
        _, reduction, event_dims, _ = options
        needs_x, needs = ctx.needs_input_grad[FIRST], ctx.needs_input_grad[FIRST + 1 :]
        dtypes = (mean.dtype, kl.dtype, mean.dtype if logvar is None else logvar.dtype)
        one_pass = (
            any(needs) and not needs_x and reduction != "none" and torch.float16 not in dtypes
            and type(backend) is ModuleType and backend is not reference
        )  # fmt: skip
        loss, log_likelihood, *made = backend.negative_elbo_forward(
            *inputs, *options,
            with_halves(needs, mean, logvar, event_dims) if one_pass else _NONE,
        )  # fmt: skip
        ctx.save_for_backward(*inputs)
        ctx.made = made[0] if one_pass else None
        ctx.mark_non_differentiable(log_likelihood)
        return loss, log_likelihood

    def gradients(
        self, ctx: Any, backend: Any, options: Options, upstream: tuple[Tensor | None, ...]
    ) -> tuple[Any, ...]:
        grad_loss, _ = upstream
        if grad_loss is None:
            return None, None, None, None
        if ctx.made is not None and takes_kernels():
            try:
                backend.scale_(without_gaps(ctx.made), grad_loss)
            except UnreadableError:  # before anything has been scaled
                pass
            else:
                ready, ctx.made = ctx.made, None
                return None, *ready
        *inputs, kl = ctx.saved_tensors
        require_memory(grad_loss, kl)
        beta, *others = options
        needs = ctx.needs_input_grad[self._needs]
        made: tuple[Tensor | None, ...] = (None, None, None)
        if any(needs):
            made = gradients(
                backend, self._backward, (grad_loss,), tuple(inputs), tuple(others), needs,
                others[1], mean=1,
            )  # fmt: skip
        by_kl = grad_kl(grad_loss, kl, beta, others[0]) if ctx.needs_input_grad[-1] else None
        return *made, by_kl

    def call_with(
        self, backend: str, inputs: Inputs, beta: float | Tensor, options: Options
    ) -> Any:
        """``call``, with a ``beta`` that may be changed once it returns."""
        given = beta if isinstance(beta, Tensor) else None
        if given is not None:
            require_memory(given)
        if is_watched(backend, inputs if given is None else (*inputs, given)):
            if backend in SEEN_THROUGH:
                return self.composed(inputs, (beta, *options))
            device = inputs[1].device
            if given is not None:  # a copy, which nobody else writes to
                beta = given.to(device, torch.float64, copy=True)
            else:  # a product: the compiler leaves a float open if it multiplies, else burns it in
                beta = torch.ones((), dtype=torch.float64, device=device) * beta
            return self.op(*inputs, beta, *options, backend)
        if not is_differentiated(*inputs):
            return self.forward(_backends.get(backend), *inputs, beta, *options)
        if given is not None:  # the backward pass needs today's value, whatever comes later
            beta = given.clone() if given.device.type != "cpu" else given.item()
        return self.apply((beta, *options), _backends.get(backend), inputs)


negative_elbo = NegativeELBO()
