"""What a small call cannot go below: an ``autograd.Function`` that computes nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.peers import Function
from vae_fast.autograd import apply_of

EMPTY = "empty"


class _Empty(torch.autograd.Function):
    """Allocates the outputs and the gradients, keeps the arguments, and computes none of them."""

    @staticmethod
    def forward(ctx: Any, outputs: tuple[Tensor, ...], *arguments: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*arguments)
        ctx.set_materialize_grads(False)
        return tuple([torch.empty_like(output) for output in outputs])

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor | None) -> Any:
        pairs = zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        return None, *[torch.empty_like(t) if need else None for t, need in pairs]


_apply = apply_of(_Empty)


def empty(outputs: tuple[Tensor, ...]) -> Function:
    """Takes any arguments, and returns new tensors like ``outputs``."""
    like = tuple(output.detach() for output in outputs)
    return lambda *arguments: _apply(like, *arguments)
