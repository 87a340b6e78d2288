"""The compiled C++ kernels: tensors go to ``vae_fast._C`` as they are, and it makes the results."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import memory
from vae_fast._backends import Needs, Unavailable, _native
from vae_fast._backends._native import REDUCTION_CODES
from vae_fast._backends.reference import compute_dtype
from vae_fast._storage import require_memory

_C = _native.module
_COMPUTED = (torch.float32, torch.float64)
_NO_BOUNDS = (0.0, 0.0)  # without a log-variance there is nothing to clamp


def unavailable() -> Unavailable | None:
    return _native.missing


if _C is not None:  # the functions that are the kernels themselves, and as those of ``reference``
    sample_kl_forward = _C.sample_kl_forward
    sample_kl_backward = _C.sample_kl_backward
    gaussian_kl_forward = _C.gaussian_kl_forward
    gaussian_kl_backward = _C.gaussian_kl_backward
    sample_log_weights_forward = _C.sample_log_weights_forward
    sample_log_weights_backward = _C.sample_log_weights_backward
    score_function_backward = _C.score_function_backward
    gaussian_log_likelihood_forward = _C.gaussian_log_likelihood_forward
    squared_error_forward = _C.squared_error_forward


def noise(
    shape: tuple[int, ...],
    event_dims: int,
    num_samples: int | None,
    seed: int | Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    eps = memory.empty(shape if num_samples is None else (num_samples, *shape), dtype)
    _C.noise(eps, num_samples, event_dims, seed, row_offset)
    return eps


def importance_weighted_elbo_forward(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    # They are one element for each event's worth of others: converting them costs little.
    if log_weights.dtype not in _COMPUTED or not log_weights.is_contiguous():
        require_memory(log_weights)
        log_weights = log_weights.to(compute_dtype(log_weights)).contiguous()
    return _C.importance_weighted_elbo_forward(log_weights)


def squared_error_backward(
    gradient: Tensor, x: Tensor, mean: Tensor, event_dims: int, needs: Needs
) -> tuple[Tensor | None, ...]:
    return gaussian_log_likelihood_backward(
        gradient, x, mean, None, event_dims, _NO_BOUNDS, (*needs, False), -2.0
    )[:2]


def gaussian_log_likelihood_backward(
    grad_ll: Tensor,
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,
    scale: float = 1.0,
) -> tuple[Tensor | None, ...]:
    """The gradients by x, mean and logvar for ``scale`` times what arrives."""
    grad_x, *others = _C.gaussian_log_likelihood_backward(
        grad_ll, scale, x, mean, logvar, event_dims, bounds, needs
    )
    if grad_x is not None and grad_x.shape != x.shape:  # the samples share x
        grad_x = grad_x.sum(0).to(x.dtype)
    return grad_x, *others


def negative_elbo_forward(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    kl: Tensor,
    beta: float | Tensor,
    reduction: str,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """The loss, the log-likelihood of each row, and the loss's gradients asked for.

    ``needs`` tells which, of mean, logvar and kl; none for the reduction "none".
    """
    return _C.negative_elbo_forward(
        x, mean, logvar, kl, float(beta), REDUCTION_CODES[reduction], event_dims, bounds, needs
    )  # fmt: skip


def negative_elbo_backward(
    grad_loss: Tensor,
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    reduction: str,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    """The two-pass form: the gradients by x, mean and logvar for what arrives from above."""
    grad_ll = grad_loss.expand(mean.shape[: mean.dim() - event_dims])
    samples = mean.shape[0] if mean.dim() > x.dim() else 1
    scale = -1.0 / max(grad_ll.numel() if reduction == "mean" else samples, 1)
    return gaussian_log_likelihood_backward(
        grad_ll, x, mean, logvar, event_dims, bounds, needs, scale
    )


def scale_(gradients: tuple[Tensor | None, ...], factor: Tensor) -> None:
    """Multiplies each gradient by a 0-dim factor, in place; nothing to do where it is 1.

    Times 0 it is 0, where it is infinite or NaN too.
    """
    value = _C.value(factor)
    if value != 1.0:
        for gradient in gradients:
            if gradient is None:
                continue
            if value == 0.0:
                gradient.zero_()
            elif factor.dtype is torch.float64 and gradient.dtype is not torch.float64:
                # By mul_ a factor without dimensions would be rounded first.
                torch.mul(gradient, factor.expand(gradient.shape), out=gradient)
            else:
                gradient.mul_(factor)
