"""Autograd of ``sample_log_weights``: the noise is made again, so only the inputs are kept."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast._backends import SEEN_THROUGH, reference
from vae_fast._backends.reference import compute_dtype, gradient_shares
from vae_fast._storage import require_memory
from vae_fast.autograd import apply_of, gradients, is_watched, require_strided
from vae_fast.autograd.dispatched import Dispatched, register_backward, register_forward
from vae_fast.autograd.noise import draw_seed

_ARGUMENTS = (
    "Tensor mean, Tensor logvar, Tensor? prior_mean, Tensor? prior_logvar, Tensor? eps, "
    "Tensor? seed, SymInt? num_samples, int event_dims, SymInt row_offset, SymInt sample_offset, "
    "float[] bounds"
)


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
        backend: ModuleType | Dispatched,
    ) -> tuple[Tensor, Tensor]:
        inputs = (mean, logvar, prior_mean, prior_logvar, eps)
        ctx.save_for_backward(*inputs)
        ctx.options, ctx.estimator, ctx.backend = options, estimator, backend
        ctx.set_materialize_grads(False)
        return backend.sample_log_weights_forward(*inputs, *options)

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor | None, grad_log_ratio: Tensor | None) -> Any:
        # To a backend "dreg" is "stl" with a weight for each sample's path.
        path_weight = None
        if ctx.estimator == "dreg" and ctx.options[1] is not None and grad_log_ratio is not None:
            require_strided(grad_log_ratio)
            require_memory(grad_log_ratio)
            path_weight = gradient_shares(grad_log_ratio)
        made = gradients(
            ctx.backend, "sample_log_weights_backward", (grad_z, grad_log_ratio, path_weight),
            ctx.saved_tensors, (*ctx.options, ctx.estimator != "reparameterization"),
            ctx.needs_input_grad[:4], ctx.options[2],
        )  # fmt: skip
        return *made, None, None, None, None


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
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    inputs = (mean, logvar, prior_mean, prior_logvar, eps)
    watched = is_watched(backend, *inputs, seed if isinstance(seed, Tensor) else None)
    drawn = eps is None and seed is None  # for this call: nobody else has it
    if drawn:
        seed = draw_seed(mean, generator, watched)
    if watched:
        if backend in SEEN_THROUGH:
            return reference.sample_log_weights(
                *inputs, seed, num_samples, event_dims, row_offset, sample_offset, bounds, estimator
            )
        seed = _seed.kept_tensor(seed, mean.device, drawn)
        return _op(
            *inputs, seed, num_samples, event_dims, row_offset, sample_offset, bounds, estimator,
            backend,
        )  # fmt: skip
    seed = seed if drawn else _seed.kept(seed)
    options = (seed, num_samples, event_dims, row_offset, sample_offset, bounds)
    return _apply(*inputs, options, estimator, _backends.get(backend))


def _applied(*arguments: Any) -> tuple[Tensor, Tensor]:
    *inputs_and_options, estimator, backend = arguments
    inputs, options = inputs_and_options[:5], tuple(inputs_and_options[5:])
    return _apply(*inputs, options, estimator, backend)


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
) -> list[Tensor]:
    lead = () if num_samples is None else (num_samples,)
    dtype = compute_dtype(mean, logvar, prior_mean, prior_logvar)
    return [
        mean.new_empty((*lead, *mean.shape)),
        mean.new_empty((*lead, *mean.shape[: mean.dim() - event_dims]), dtype=dtype),
    ]


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    *inputs_and_options, _estimator, backend = arguments
    return _backends.get(backend).sample_log_weights_forward(*inputs_and_options)


_op = register_forward(
    "sample_log_weights",
    f"{_ARGUMENTS}, str estimator",
    "(Tensor, Tensor)",
    _applied,
    _fake,
    _forward,
)
register_backward(
    "sample_log_weights_backward",
    f"Tensor? grad_z, Tensor? grad_log_ratio, Tensor? path_weight, {_ARGUMENTS}, bool path_only",
    ("mean", "logvar", "prior_mean", "prior_logvar"),
)
