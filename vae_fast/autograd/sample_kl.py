"""Autograd of ``sample_kl``: the noise is made again from the seed, so only the inputs are kept."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast._backends.reference import compute_dtype
from vae_fast._control import KLControl
from vae_fast.autograd import (
    apply_of,
    as_tensors,
    asked_for,
    fake_gradients,
    first_order,
    register,
    register_backward,
    uses_dispatcher,
    with_control,
)
from vae_fast.autograd.halves import with_halves

_OPTIONS = (
    "Tensor? eps, Tensor? seed, SymInt? num_samples, int event_dims, SymInt row_offset, "
    "float logvar_min, float logvar_max, float floor, float posterior_weight, float prior_weight"
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
        options: tuple[Any, ...],  # from the seed to the control, as the backend takes them
        return_dims: bool,
        backend: ModuleType,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.save_for_backward(mean, logvar, prior_mean, prior_logvar, eps)
        ctx.options, ctx.backend = options, backend
        ctx.set_materialize_grads(False)
        return backend.sample_kl_forward(
            mean, logvar, prior_mean, prior_logvar, eps, *options, return_dims
        )

    @staticmethod
    def backward(
        ctx: Any, grad_z: Tensor | None, grad_kl: Tensor | None, grad_dims: Tensor | None
    ) -> Any:
        inputs = ctx.saved_tensors
        needs = with_halves(ctx.needs_input_grad[:4], inputs[0], inputs[1], ctx.options[2])
        gradients = ctx.backend.sample_kl_backward(
            grad_z, grad_kl, grad_dims, *inputs, *ctx.options, needs
        )
        if torch.is_grad_enabled():
            upstream = (grad_z, grad_kl, grad_dims)
            gradients = first_order("sample_kl", gradients, *upstream, *inputs)
        return *gradients, None, None, None, None


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
    control: KLControl,
    return_dims: bool,
    backend: str,
    drawn: bool,  # the seed, for this call: nobody else has it
) -> tuple[Tensor, Tensor, Tensor | None]:
    if uses_dispatcher(mean, logvar, prior_mean, prior_logvar, eps):
        seed = None if seed is None else _seed.to_tensor(seed, mean.device)
        z, kl, dims = _sample_kl_op(
            mean, logvar, prior_mean, prior_logvar, eps, seed, num_samples, event_dims, row_offset,
            *bounds, *control, return_dims, backend,
        )  # fmt: skip
        return z, kl, dims if return_dims else None
    seed = seed if drawn else _seed.kept(seed)
    options = (seed, num_samples, event_dims, row_offset, bounds, control)
    return _apply(
        mean, logvar, prior_mean, prior_logvar, eps, options, return_dims, _backends.get(backend)
    )


def _fake(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor | None,
    seed: Tensor | None,
    num_samples: int | None,
    event_dims: int,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = mean.shape if num_samples is None else (num_samples, *mean.shape)
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    split, return_dims = mean.dim() - event_dims, options[-2]
    return (
        mean.new_empty(shape),
        mean.new_empty(mean.shape[:split], dtype=dtype),
        mean.new_empty(mean.shape[split:] if return_dims else (0,), dtype=dtype),
    )


def _fake_backward(
    grad_z: Tensor | None, grad_kl: Tensor | None, grad_dims: Tensor | None, *arguments: Any
) -> tuple[Tensor, ...]:
    return fake_gradients(arguments[-1], (grad_z, grad_kl, grad_dims), arguments[:4])


def _run(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, return_dims, backend = arguments
    z, kl, dims = _backends.get(backend).sample_kl_forward(*with_control(inputs), return_dims)
    return z, kl, kl.new_empty(0) if dims is None else dims


def _run_backward(*arguments: Any) -> tuple[Tensor, ...]:
    *inputs, backend, needs = arguments
    gradients = _backends.get(backend).sample_kl_backward(*with_control(inputs), tuple(needs))
    return as_tensors(gradients, inputs)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    *ctx.options, ctx.return_dims, ctx.backend = inputs[6:]
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any, grad_z: Tensor | None, grad_kl: Tensor | None, grad_dims: Tensor | None
) -> Any:
    needs = [bool(need) for need in ctx.needs_input_grad[:4]]
    gradients = _sample_kl_backward_op(
        grad_z, grad_kl, grad_dims if ctx.return_dims else None, *ctx.saved_tensors, *ctx.options,
        ctx.backend, needs,
    )  # fmt: skip
    return *asked_for(needs, gradients), *(None,) * (4 + len(ctx.options))


_sample_kl_op = register(
    "sample_kl",
    f"({_INPUTS}, {_OPTIONS}, bool return_dims, str backend) -> (Tensor, Tensor, Tensor)",
    _run,
    _fake,
)
_sample_kl_op.register_autograd(_backward, setup_context=_setup_context)
_sample_kl_backward_op = register_backward(
    "sample_kl_backward",
    f"(Tensor? grad_z, Tensor? grad_kl, Tensor? grad_dims, {_INPUTS}, {_OPTIONS}, str backend, "
    "bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
