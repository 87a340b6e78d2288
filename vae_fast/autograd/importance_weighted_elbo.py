"""Autograd of ``importance_weighted_elbo``: the weights of the forward pass are its gradient."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._backends import SEEN_THROUGH, reference
from vae_fast._backends.reference import compute_dtype
from vae_fast._storage import require_memory
from vae_fast.autograd import apply_of, is_watched, require_strided
from vae_fast.autograd.dispatched import Dispatched, register_forward


class ImportanceWeightedELBO(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_weights: Tensor, backend: ModuleType | Dispatched
    ) -> tuple[Tensor, Tensor]:
        bound, weights = backend.importance_weighted_elbo_forward(log_weights)
        ctx.save_for_backward(log_weights, weights)
        ctx.backend = backend
        ctx.mark_non_differentiable(weights)
        ctx.set_materialize_grads(False)
        return bound, weights

    @staticmethod
    def backward(ctx: Any, grad_bound: Tensor | None, _grad_weights: Tensor | None) -> Any:
        if grad_bound is None:
            return None, None
        log_weights, weights = ctx.saved_tensors
        require_strided(grad_bound)
        require_memory(grad_bound, weights)
        if torch.is_grad_enabled():
            require_memory(log_weights)
            return reference.importance_weighted_elbo_backward(grad_bound, log_weights), None
        # One pass, which plain PyTorch does as well.
        return (grad_bound * weights).to(log_weights.dtype), None


_apply = apply_of(ImportanceWeightedELBO)


def importance_weighted_elbo(log_weights: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    if is_watched(backend, log_weights):
        if backend in SEEN_THROUGH:
            return reference.importance_weighted_elbo_forward(log_weights)
        return _op(log_weights, backend)
    return _apply(log_weights, _backends.get(backend))


def _fake(log_weights: Tensor, _backend: str) -> list[Tensor]:
    dtype = compute_dtype(log_weights)
    shape = log_weights.shape
    return [log_weights.new_empty(each, dtype=dtype) for each in (shape[1:], shape)]


_op = register_forward(
    "importance_weighted_elbo", "Tensor log_weights", "(Tensor, Tensor)", _apply, _fake
)
