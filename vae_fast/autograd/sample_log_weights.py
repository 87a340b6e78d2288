"""Autograd of ``sample_log_weights``: the noise is made again, so only the inputs are kept."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast._backends import Needs
from vae_fast._backends.reference import compute_dtype
from vae_fast._backends.reference_estimators import gradient_shares
from vae_fast.autograd import (
    apply_of,
    as_tensors,
    asked_for,
    fake_gradients,
    first_order,
    register,
    register_backward,
    runner,
    uses_dispatcher,
)
from vae_fast.autograd.halves import with_halves

_INPUTS = "Tensor mean, Tensor logvar, Tensor? prior_mean, Tensor? prior_logvar"
_OPTIONS = (
    "Tensor? eps, Tensor? seed, SymInt? num_samples, int event_dims, SymInt row_offset, "
    "SymInt sample_offset, float logvar_min, float logvar_max"
)


def _gradients(
    backend: ModuleType,
    grad_z: Tensor | None,
    grad_log_ratio: Tensor | None,
    inputs: tuple[Tensor | None, ...],  # the Gaussians' four and eps
    options: tuple[Any, ...],  # from the seed to the bounds
    estimator: str,
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    """The backend's, to which "dreg" is "stl" with a weight for each sample's path."""
    path_weight = None
    if estimator == "dreg" and options[1] is not None and grad_log_ratio is not None:
        path_weight = gradient_shares(grad_log_ratio)
    return tuple(
        backend.sample_log_weights_backward(
            grad_z, grad_log_ratio, path_weight, *inputs, *options,
            estimator != "reparameterization", needs,
        )
    )  # fmt: skip


class SampleLogWeights(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        logvar: Tensor,
        prior_mean: Tensor | None,
        prior_logvar: Tensor | None,
        eps: Tensor | None,
        options: tuple[Any, ...],  # from the seed to the bounds, as the backend takes them
        estimator: str,
        backend: ModuleType,
    ) -> tuple[Tensor, Tensor]:
        inputs = (mean, logvar, prior_mean, prior_logvar, eps)
        ctx.save_for_backward(*inputs)
        ctx.options, ctx.estimator, ctx.backend = options, estimator, backend
        ctx.set_materialize_grads(False)
        return backend.sample_log_weights_forward(*inputs, *options)

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor | None, grad_log_ratio: Tensor | None) -> Any:
        inputs = ctx.saved_tensors
        needs = with_halves(ctx.needs_input_grad[:4], inputs[0], inputs[1], ctx.options[2])
        gradients = _gradients(
            ctx.backend, grad_z, grad_log_ratio, inputs, ctx.options, ctx.estimator, needs
        )
        if torch.is_grad_enabled():
            upstream = (grad_z, grad_log_ratio)
            gradients = first_order("sample_log_weights", gradients, *upstream, *inputs)
        return *gradients, None, None, None, None


_apply = apply_of(SampleLogWeights)


def sample_log_weights(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor | None,
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    sample_offset: int,
    bounds: tuple[float, float],
    estimator: str,
    backend: str,
    drawn: bool,  # the seed, for this call: nobody else has it
) -> tuple[Tensor, Tensor]:
    inputs = (mean, logvar, prior_mean, prior_logvar, eps)
    if uses_dispatcher(*inputs):
        seed = None if seed is None else _seed.to_tensor(seed, mean.device)
        return _op(
            *inputs, seed, num_samples, event_dims, row_offset, sample_offset, *bounds, estimator,
            backend,
        )  # fmt: skip
    seed = seed if drawn else _seed.kept(seed)
    options = (seed, num_samples, event_dims, row_offset, sample_offset, bounds)
    return _apply(*inputs, options, estimator, _backends.get(backend))


def _run(*arguments: Any) -> tuple[Tensor, Tensor]:
    *inputs, _estimator, backend = arguments
    return runner("sample_log_weights_forward")(*inputs, backend)


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
    lead = () if num_samples is None else (num_samples,)
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    return (
        mean.new_empty((*lead, *mean.shape)),
        mean.new_empty((*lead, *mean.shape[: mean.dim() - event_dims]), dtype=dtype),
    )


def _run_backward(
    grad_z: Tensor | None, grad_log_ratio: Tensor | None, *arguments: Any
) -> tuple[Tensor, ...]:
    *given, logvar_min, logvar_max, estimator, backend, needs = arguments
    inputs, options = tuple(given[:5]), (*given[5:], (logvar_min, logvar_max))
    gradients = _gradients(
        _backends.get(backend), grad_z, grad_log_ratio, inputs, options, estimator, tuple(needs)
    )
    return as_tensors(gradients, inputs)


def _fake_backward(
    grad_z: Tensor | None, grad_log_ratio: Tensor | None, *arguments: Any
) -> tuple[Tensor, ...]:
    return fake_gradients(arguments[-1], (grad_z, grad_log_ratio), arguments[:4])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_z: Tensor | None, grad_log_ratio: Tensor | None) -> Any:
    needs = [bool(need) for need in ctx.needs_input_grad[:4]]
    gradients = _backward_op(grad_z, grad_log_ratio, *ctx.saved_tensors, *ctx.options, needs)
    return *asked_for(needs, gradients), *(None,) * (2 + len(ctx.options))


_op = register(
    "sample_log_weights",
    f"({_INPUTS}, {_OPTIONS}, str estimator, str backend) -> (Tensor, Tensor)",
    _run,
    _fake,
)
_op.register_autograd(_backward, setup_context=_setup_context)
_backward_op = register_backward(
    "sample_log_weights_backward",
    f"(Tensor? grad_z, Tensor? grad_log_ratio, {_INPUTS}, {_OPTIONS}, str estimator, str backend, "
    "bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
