"""The gradient estimators and importance weights of the ``cuda`` backend.

Each function takes the compiled kernels, and what says of a device where a call on it launches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vae_fast._backends import _codes, _views
from vae_fast._backends.reference import compute_dtype

Contexts = Callable[[torch.device], tuple[Any, ...]]


def sample_log_weights_forward(
    kernels: Any,
    context: Contexts,
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
    inputs = _views.as_read((mean, logvar, prior_mean, prior_logvar), mean)
    read = inputs[0]
    assert read is not None
    frame = _views.frame_of(mean.shape, event_dims, samples=False)
    samples = _views.sample_frame(mean.shape, num_samples, event_dims)
    make = torch.empty if mean.numel() > 0 else torch.zeros
    z = torch.empty(samples.shape, dtype=read.dtype, device=mean.device)
    log_ratio = make(
        samples.shape[: samples.last], dtype=compute_dtype(*inputs), device=mean.device
    )
    if mean.numel() > 0:
        kernels.sample_log_weights_forward(
            samples.sizes, tuple([_views.operand(t, frame, adjacent=t is read) for t in inputs]),
            bounds, _views.sampled(eps, samples, read),
            _views.noise(seed, row_offset, mean.device), sample_offset, _views.output(z),
            _views.output(log_ratio, _codes.ROW), context(mean.device),
        )  # fmt: skip
    return z.to(mean.dtype), log_ratio


def sample_log_weights_backward(
    kernels: Any,
    context: Contexts,
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
    tensors = (mean, logvar, prior_mean, prior_logvar)
    if mean.numel() == 0 or (grad_z is None and grad_log_ratio is None):
        return _views.zeros(tensors, needs)
    inputs = _views.as_read(tensors, mean)
    read = inputs[0]
    assert read is not None
    frame = _views.frame_of(mean.shape, event_dims, samples=False)
    samples = _views.sample_frame(mean.shape, num_samples, event_dims)
    gradients, outputs = _views.new_gradients(inputs, needs, frame)
    kernels.sample_log_weights_backward(
        samples.sizes, tuple([_views.operand(t, frame, adjacent=t is read) for t in inputs]),
        bounds, _views.sampled(eps, samples, read),
        _views.noise(seed, row_offset, mean.device), sample_offset,
        _views.sampled(grad_z, samples, read),
        _views.by_row(grad_log_ratio, samples), _views.by_row(path_weight, samples), path_only,
        outputs, context(mean.device),
    )  # fmt: skip
    return _views.returned(gradients, tensors)


def importance_weighted_elbo_forward(
    kernels: Any,
    context: Contexts,
    log_weights: Tensor,  # [K, *batch]
) -> tuple[Tensor, Tensor]:
    options: Any = {"dtype": compute_dtype(log_weights), "device": log_weights.device}
    bound = torch.empty(log_weights.shape[1:], **options)
    weights = torch.empty(log_weights.shape, **options)
    if log_weights.numel() > 0:
        frame = _views.frame_of(log_weights.shape, 0, samples=True)
        kernels.importance_weighted_elbo_forward(
            frame.sizes, _views.operand(log_weights, frame), _views.output(bound),
            _views.output(weights), context(log_weights.device),
        )  # fmt: skip
    return bound, weights


def score_function_backward(
    kernels: Any,
    context: Contexts,
    weight: Tensor,  # [*samples, *batch]
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
    if mean.numel() == 0:
        return _views.zeros((mean, logvar), needs)
    compute = compute_dtype(mean, logvar)
    # Of the mean there is only the gradient, in the dtype that it would be read in.
    like = mean.new_empty(0, dtype=compute if compute is torch.float64 else mean.dtype)
    (read,) = _views.as_read((logvar,), like)
    frame = _views.frame_of(mean.shape, event_dims, samples=False)
    samples = _views.sample_frame(mean.shape, num_samples, event_dims)
    grad_mean = like.new_empty(mean.shape) if needs[0] else None
    gradients, outputs = _views.new_gradients((read,), needs[1:], frame)
    kernels.score_function_backward(
        samples.sizes, _codes.DTYPES[like.dtype], _views.by_row(weight, samples),
        _views.operand(read, frame), bounds, _views.sampled(eps, samples, like),
        _views.noise(seed, row_offset, mean.device),
        None if grad_mean is None else _views.output(grad_mean), *outputs, context(mean.device),
    )  # fmt: skip
    return _views.returned((grad_mean, *gradients), (mean, logvar))
