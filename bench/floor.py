"""What a small call cannot go below: an ``autograd.Function`` that computes nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench import harness
from bench.ops import run_backward
from bench.workload import OURS, Workload
from vae_fast.autograd import apply_of

EMPTY = "empty"
# Ops of one Function each.
OPS = ("sample_kl", "gaussian_kl", "gaussian_log_likelihood", "negative_elbo")


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


def compare(workload: Workload, seconds: float) -> harness.Comparison:
    """Forward and backward of ours and of the empty Function, in turn."""
    copies = workload.copies
    outputs = tuple(t.detach() for t in workload.functions[OURS](*copies[0].arguments))

    def run(number: int) -> None:
        inputs = copies[number % len(copies)]
        inputs.clear()
        run_backward(inputs, _apply(outputs, *inputs.arguments))

    blocks = {OURS: workload.block(OURS, "both"), EMPTY: harness.timed(run)}
    return harness.interleave(blocks, seconds)
