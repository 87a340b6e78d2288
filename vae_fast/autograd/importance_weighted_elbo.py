"""``importance_weighted_elbo`` to autograd: the weights of the forward pass are its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast._backends import reference
from vae_fast._backends.reference import compute_dtype
from vae_fast._storage import require_memory
from vae_fast.autograd import require_strided
from vae_fast.autograd.op import Inputs, Op, Options


class ImportanceWeightedELBO(Op):
    name = "importance_weighted_elbo"
    inputs = "Tensor log_weights"
    returns = "(Tensor, Tensor)"
    learned = ("log_weights",)

    def shapes(self, call: Any) -> tuple[Tensor, Tensor]:
        shape, dtype = call.log_weights.shape, compute_dtype(call.log_weights)
        return tuple(call.log_weights.new_empty(s, dtype=dtype) for s in (shape[1:], shape))

    def run(
        self, ctx: Any, backend: Any, inputs: Inputs, options: Options
    ) -> tuple[Tensor, Tensor]:
        bound, weights = backend.importance_weighted_elbo_forward(*inputs)
        ctx.save_for_backward(*inputs, weights)
        ctx.mark_non_differentiable(weights)
        return bound, weights

    def gradients(
        self, ctx: Any, backend: Any, options: Options, upstream: tuple[Tensor | None, ...]
    ) -> tuple[Tensor | None]:
        gradient, _ = upstream
        if gradient is None:
            return (None,)
        log_weights, weights = ctx.saved_tensors
        require_strided(gradient)
        require_memory(gradient, weights)
        if torch.is_grad_enabled():
            require_memory(log_weights)
            return (reference.importance_weighted_elbo_backward(gradient, log_weights),)
        made = gradient * weights  # one pass, which plain PyTorch does as well
        return (made if made.dtype is log_weights.dtype else made.to(log_weights.dtype),)


importance_weighted_elbo = ImportanceWeightedELBO()
