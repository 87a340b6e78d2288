"""``score_function`` to autograd: nothing is computed forward, and all in one pass backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast._backends import reference
from vae_fast._backends.reference import compute_dtype
from vae_fast._storage import require_memory
from vae_fast.autograd import gradients, require_strided
from vae_fast.autograd.dispatched import Dispatched
from vae_fast.autograd.op import NOISE, Inputs, NoisyOp, Options


class ScoreFunction(NoisyOp):
    name = "score_function"
    # mean is there for its shape and dtype: the gradient does not depend on its values.
    inputs = "Tensor signal, Tensor weight, Tensor mean, Tensor logvar, Tensor? eps"
    options = f"{NOISE}, float[] bounds"
    learned = ("mean", "logvar")
    backward_arguments = (
        "Tensor gradient, Tensor weight, Tensor mean, Tensor logvar, Tensor? eps, "
        f"{NOISE}, float[] bounds"
    )

    def shapes(self, call: Any) -> Tensor:
        return torch.empty_like(call.signal)

    def forward(self, backend: Any, *arguments: Any) -> Any:
        return arguments[0].clone()

    def composed(self, inputs: Inputs, options: Options) -> Any:
        return reference.score_function(*inputs, *options)

    def run(self, ctx: Any, backend: Any, inputs: Inputs, options: Options) -> Tensor:
        signal, *kept = inputs
        ctx.save_for_backward(*kept)
        if isinstance(backend, Dispatched):
            return backend.score_function_forward()
        return signal.view_as(signal)

    def gradients(
        self, ctx: Any, backend: Any, options: Options, upstream: tuple[Tensor | None, ...]
    ) -> tuple[Any, ...]:
        (gradient,) = upstream
        assert gradient is not None
        weight, *inputs = ctx.saved_tensors
        made: tuple[Tensor | None, ...] = (None, None)
        needs = ctx.needs_input_grad[self._needs]
        if any(needs):
            arriving = (gradient, weight)
            if weight.dtype is torch.float64 and compute_dtype(*inputs[:2]) is not torch.float64:
                # The kernels would round each factor to float32, in whose range the product may be.
                require_strided(gradient)
                require_memory(gradient, weight)
                arriving = (reference.times(gradient, weight), torch.ones_like(weight))
            made = gradients(
                backend, self._backward, arriving, tuple(inputs), options, needs, options[2]
            )
        return gradient, None, *made, None


score_function = ScoreFunction()
