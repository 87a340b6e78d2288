"""Autograd of ``split_parameters``: two gradients that lie side by side are that of the whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast.autograd import apply_of, halves, is_watched


class SplitParameters(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameters: Tensor, dim: int) -> tuple[Tensor, ...]:
        ctx.layout = dim, parameters.shape, parameters.stride()
        ctx.set_materialize_grads(False)
        return parameters.chunk(2, dim)

    @staticmethod
    def backward(ctx: Any, mean: Tensor | None, logvar: Tensor | None) -> Any:
        if not torch.is_grad_enabled():  # else autograd has to see how they become one
            whole = halves.whole_of(mean, logvar, *ctx.layout)
            if whole is not None:
                return whole, None
        one = mean if logvar is None else logvar
        if one is None:
            return None, None
        both = [torch.zeros_like(one) if half is None else half for half in (mean, logvar)]
        return torch.cat(both, ctx.layout[0]), None


_apply = apply_of(SplitParameters)


def split_parameters(parameters: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The halves of ``parameters`` along ``dim``, which is counted from the left."""
    # chunk is differentiated without Python, which joins what is small in less time.
    if (
        is_watched(None, (parameters,))
        or parameters.numel() * parameters.itemsize < halves.SMALLEST
        or not (parameters.requires_grad and torch.is_grad_enabled())
        or not parameters.is_contiguous()
        or torch._C._are_functorch_transforms_active()
    ):
        mean, logvar = parameters.chunk(2, dim)
    else:
        mean, logvar = _apply(parameters, dim)
    return mean, logvar
