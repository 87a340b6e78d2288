"""Autograd of ``sample_kl``: the noise is made again from the seed, so only the inputs are kept."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast._backends.reference import compute_dtype
from vae_fast.autograd import (
    apply_of,
    asked_for,
    backward_runner,
    fake_gradients,
    first_order,
    register,
    register_backward,
    runner,
    uses_dispatcher,
)

_OPTIONS = (
    "Tensor? eps, Tensor? seed, SymInt? num_samples, int event_dims, SymInt row_offset, "
    "float logvar_min, float logvar_max, str backend"
)
_INPUTS = "Tensor mean, Tensor logvar, Tensor? prior_mean, Tensor? prior_logvar"


class SampleKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        logvar: Tensor,
        prior_mean: Tensor | None,
        prior_logvar: Tensor | None,
        eps: Tensor | None,
        options: tuple[Any, ...],  # from the seed to the bounds, as the backend takes them
        backend: ModuleType,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(mean, logvar, prior_mean, prior_logvar, eps)
        ctx.options, ctx.backend = options, backend
        ctx.set_materialize_grads(False)
        return backend.sample_kl_forward(mean, logvar, prior_mean, prior_logvar, eps, *options)

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor | None, grad_kl: Tensor | None) -> Any:
        inputs = ctx.saved_tensors
        gradients = ctx.backend.sample_kl_backward(
            grad_z, grad_kl, *inputs, *ctx.options, ctx.needs_input_grad[:4]
        )
        if torch.is_grad_enabled():
            gradients = first_order("sample_kl", gradients, grad_z, grad_kl, *inputs)
        return *gradients, None, None, None


_apply = apply_of(SampleKL)


def sample_kl(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor | None,
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    bounds: tuple[float, float],
    backend: str,
) -> tuple[Tensor, Tensor]:
    if uses_dispatcher(mean, logvar, prior_mean, prior_logvar, eps):
        seed = None if seed is None else _seed.to_tensor(seed, mean.device)
        return _sample_kl_op(
            mean, logvar, prior_mean, prior_logvar, eps, seed, num_samples, event_dims, row_offset,
            *bounds, backend,
        )  # fmt: skip
    if isinstance(seed, Tensor):  # the backward pass needs today's bits, whatever comes later
        seed = seed.clone() if seed.device.type != "cpu" else _seed.to_int(seed)
    options = (seed, num_samples, event_dims, row_offset, bounds)
    return _apply(mean, logvar, prior_mean, prior_logvar, eps, options, _backends.get(backend))


def _fake(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor | None,
    seed: Tensor | None,
    num_samples: int | None,
    event_dims: int,
    *_options: Any,
) -> tuple[Tensor, Tensor]:
    shape = mean.shape if num_samples is None else (num_samples, *mean.shape)
    batch = mean.shape[: mean.dim() - event_dims]
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    return mean.new_empty(shape), mean.new_empty(batch, dtype=dtype)


def _fake_backward(
    grad_z: Tensor | None, grad_kl: Tensor | None, *arguments: Any
) -> tuple[Tensor, ...]:
    return fake_gradients(arguments[-1], (grad_z, grad_kl), arguments[:4])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_z: Tensor | None, grad_kl: Tensor | None) -> Any:
    needs = [bool(need) for need in ctx.needs_input_grad[:4]]
    gradients = _sample_kl_backward_op(grad_z, grad_kl, *ctx.saved_tensors, *ctx.options, needs)
    return *asked_for(needs, gradients), *(None,) * (2 + len(ctx.options))


_sample_kl_op = register(
    "sample_kl", f"({_INPUTS}, {_OPTIONS}) -> (Tensor, Tensor)", runner("sample_kl_forward"), _fake
)
_sample_kl_op.register_autograd(_backward, setup_context=_setup_context)
_sample_kl_backward_op = register_backward(
    "sample_kl_backward",
    f"(Tensor? grad_z, Tensor? grad_kl, {_INPUTS}, {_OPTIONS}, bool[] needs) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    backward_runner("sample_kl_backward"),
    _fake_backward,
)
