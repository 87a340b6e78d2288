"""The gradient estimators and importance weights of the C++ kernels; part of ``cpu``."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from vae_fast import memory
from vae_fast._backends._cpu_tensors import (
    _empty_like,
    _empty_rows,
    _gradients,
    _operand,
    _operands,
    _output,
    _row_output,
    _sampled,
    _with_samples,
)
from vae_fast._backends.reference import compute_dtype

with contextlib.suppress(ImportError):  # of which ``cpu`` tells
    from vae_fast import _C


def sample_log_weights_forward(
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
) -> tuple[Tensor, Tensor]:
    shape = mean.shape
    z_shape = _with_samples(shape, num_samples)
    tensors = (mean, logvar, prior_mean, prior_logvar)
    operands = _operands(tensors, shape)
    z = _empty_like(mean, operands[0]) if num_samples is None else memory.empty(z_shape, mean.dtype)
    log_ratio = _empty_rows(z_shape[: len(z_shape) - event_dims], compute_dtype(*tensors))
    _C.sample_log_weights_forward(
        shape, event_dims, num_samples or 1, operands,
        None if eps is None else _sampled(eps, z_shape, num_samples), seed, row_offset,
        sample_offset, bounds, _output(z), _row_output(log_ratio), torch.get_num_threads(),
    )  # fmt: skip
    return z, log_ratio


def sample_log_weights_backward(
    grad_z: Tensor | None,
    grad_log_ratio: Tensor | None,
    path_weight: Tensor | None,
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
    path_only: bool,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    shape = mean.shape
    z_shape = _with_samples(shape, num_samples)
    tensors = (mean, logvar, prior_mean, prior_logvar)
    operands = _operands(tensors, shape)
    gradients, outputs = _gradients(tensors, operands, needs, shape, event_dims)
    if grad_z is None and grad_log_ratio is None:
        return tuple([None if g is None else g.zero_() for g in gradients])
    rows = z_shape[: len(z_shape) - event_dims]
    _C.sample_log_weights_backward(
        shape, event_dims, num_samples or 1, operands,
        None if eps is None else _sampled(eps, z_shape, num_samples), seed, row_offset,
        sample_offset, bounds, _sampled(grad_z, z_shape, num_samples),
        _sampled(grad_log_ratio, rows, num_samples), _sampled(path_weight, rows, num_samples),
        path_only, outputs, torch.get_num_threads(),
    )  # fmt: skip
    return tuple(gradients)


def importance_weighted_elbo_forward(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    # They are one element for each event's worth of others: converting them costs little.
    log_weights = log_weights.to(compute_dtype(log_weights)).resolve_neg().contiguous()
    samples, *batch = log_weights.shape
    bound = _empty_rows(torch.Size(batch), log_weights.dtype)
    weights = torch.empty_like(log_weights)
    _C.importance_weighted_elbo_forward(
        samples, math.prod(batch), _operand(log_weights, log_weights.shape), _output(bound),
        _output(weights), torch.get_num_threads(),
    )  # fmt: skip
    return bound, weights


def score_function_backward(
    weight: Tensor,
    mean: Tensor,
    logvar: Tensor,
    eps: Tensor | None,
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    bounds: tuple[float, float],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    shape = mean.shape
    z_shape = _with_samples(shape, num_samples)
    tensors = (mean, logvar)
    operands = _operands(tensors, shape)
    gradients, outputs = _gradients(tensors, operands, needs, shape, event_dims)
    _C.score_function_backward(
        shape, event_dims, num_samples or 1, (*operands, None, None),
        None if eps is None else _sampled(eps, z_shape, num_samples), seed, row_offset, bounds,
        _sampled(weight, z_shape[: len(z_shape) - event_dims], num_samples), outputs,
        torch.get_num_threads(),
    )  # fmt: skip
    return tuple(gradients)
