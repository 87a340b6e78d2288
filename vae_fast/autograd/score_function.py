"""Autograd of ``score_function``: nothing is computed forward, and all in one pass backward."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast.autograd import (
    apply_of,
    asked_for,
    backward_runner,
    fake_gradients,
    first_order,
    register,
    register_backward,
    uses_dispatcher,
)
from vae_fast.autograd.halves import with_halves

# mean is there for its shape and dtype: the gradient does not depend on its values.
_ARGUMENTS = (
    "Tensor weight, Tensor mean, Tensor logvar, Tensor? eps, Tensor? seed, SymInt? num_samples, "
    "int event_dims, SymInt row_offset, float logvar_min, float logvar_max, str backend"
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
        backend: ModuleType,
    ) -> Tensor:
        ctx.save_for_backward(weight, mean, logvar, eps)
        ctx.options, ctx.backend = options, backend
        return signal.view_as(signal)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        weight, *inputs = ctx.saved_tensors
        gradients: tuple[Tensor | None, ...] = (None, None)
        needs = ctx.needs_input_grad[2:4]
        if any(needs):
            gradients = ctx.backend.score_function_backward(
                gradient * weight, *inputs, *ctx.options,
                with_halves(needs, inputs[0], inputs[1], ctx.options[2]),
            )  # fmt: skip
        if torch.is_grad_enabled():
            gradients = first_order("score_function", gradients, gradient, weight, *inputs)
        return gradient, None, *gradients, None, None, None


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
    if uses_dispatcher(signal, weight, mean, logvar, eps):
        seed = None if seed is None else _seed.to_tensor(seed, mean.device)
        return _op(
            signal, weight, mean, logvar, eps, seed, num_samples, event_dims, row_offset, *bounds,
            backend,
        )  # fmt: skip
    options = (_seed.kept(seed), num_samples, event_dims, row_offset, bounds)
    return _apply(signal, weight, mean, logvar, eps, options, _backends.get(backend))


def _run(signal: Tensor, *_arguments: Any) -> Tensor:
    return signal.clone()  # a registered op must not return what it was given


def _fake(signal: Tensor, *_arguments: Any) -> Tensor:
    return torch.empty_like(signal)


def _fake_backward(weight: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return fake_gradients(arguments[-1], (weight,), arguments[:2])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[1:6])
    ctx.options = inputs[6:]


def _backward(ctx: Any, gradient: Tensor) -> Any:
    weight, *inputs = ctx.saved_tensors
    needs = [bool(need) for need in ctx.needs_input_grad[2:4]]
    gradients: tuple[Tensor | None, ...] = (None, None)
    if any(needs):
        made = _backward_op(gradient * weight, *inputs, *ctx.options, needs)
        gradients = asked_for(needs, made)
    return gradient, None, *gradients, *(None,) * (2 + len(ctx.options))


_op = register("score_function", f"(Tensor signal, {_ARGUMENTS}) -> Tensor", _run, _fake)
_op.register_autograd(_backward, setup_context=_setup_context)
_backward_op = register_backward(
    "score_function_backward",
    f"({_ARGUMENTS}, bool[] needs) -> (Tensor, Tensor)",
    backward_runner("score_function_backward"),
    _fake_backward,
)
