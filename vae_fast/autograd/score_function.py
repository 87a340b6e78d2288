"""Autograd of ``score_function``: nothing is computed forward, and all in one pass backward."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast._backends import SEEN_THROUGH, reference
from vae_fast.autograd import apply_of, gradients, is_watched
from vae_fast.autograd.dispatched import Dispatched, register_backward, register_forward

# mean is there for its shape and dtype: the gradient does not depend on its values.
_ARGUMENTS = (
    "Tensor weight, Tensor mean, Tensor logvar, Tensor? eps, Tensor? seed, SymInt? num_samples, "
    "int event_dims, SymInt row_offset, float[] bounds"
)


class ScoreFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        signal: Tensor,
        weight: Tensor,
        mean: Tensor,
        logvar: Tensor,
        eps: Tensor | None,
        options: tuple[Any, ...],  # from the seed to the bounds, as the backend takes them
        backend: ModuleType | Dispatched,
    ) -> Tensor:
        ctx.save_for_backward(weight, mean, logvar, eps)
        ctx.options, ctx.backend = options, backend
        if isinstance(backend, Dispatched):
            return backend.score_function_forward()
        return signal.view_as(signal)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weight, *inputs = ctx.saved_tensors
        made: tuple[Tensor | None, ...] = (None, None)
        needs = ctx.needs_input_grad[2:4]
        if any(needs):
            made = gradients(
                ctx.backend, "score_function_backward", (gradient, weight), tuple(inputs),
                ctx.options, needs, ctx.options[2],
            )  # fmt: skip
        return gradient, None, *made, None, None, None


_apply = apply_of(ScoreFunction)


def score_function(
    signal: Tensor,
    weight: Tensor,
    mean: Tensor,
    logvar: Tensor,
    eps: Tensor | None,
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    bounds: tuple[float, float],
    backend: str,
) -> Tensor:
    given = (signal, weight, mean, logvar, eps)
    if is_watched(backend, *given, seed if isinstance(seed, Tensor) else None):
        if backend in SEEN_THROUGH:
            return reference.score_function(
                signal, weight, mean, logvar, eps, seed, num_samples, event_dims, row_offset, bounds
            )
        seed = _seed.kept_tensor(seed, mean.device)
        return _op(
            signal, weight, mean, logvar, eps, seed, num_samples, event_dims, row_offset, bounds,
            backend,
        )  # fmt: skip
    options = (_seed.kept(seed), num_samples, event_dims, row_offset, bounds)
    return _apply(signal, weight, mean, logvar, eps, options, _backends.get(backend))


def _applied(signal: Tensor, *arguments: Any) -> Tensor:
    *inputs_and_options, backend = arguments
    inputs, options = inputs_and_options[:4], tuple(inputs_and_options[4:])
    return _apply(signal, *inputs, options, backend)


_op = register_forward(
    "score_function",
    f"Tensor signal, {_ARGUMENTS}",
    "Tensor",
    _applied,
    lambda signal, *_arguments: torch.empty_like(signal),
    lambda signal, *_arguments: signal.clone(),
)
register_backward("score_function_backward", f"Tensor gradient, {_ARGUMENTS}", ("mean", "logvar"))
