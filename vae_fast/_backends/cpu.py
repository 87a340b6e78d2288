"""The compiled C++ kernels: tensors go to ``vae_fast._C`` as they are, and it makes the results."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_fast import memory
from vae_fast._backends import Needs, Unavailable, _native
from vae_fast._backends._native import REDUCTION_CODES
from vae_fast._backends.reference import compute_dtype
from vae_fast._control import KLControl
from vae_fast._storage import require_memory

_C = _native.module


def unavailable() -> Unavailable | None:
    return _native.missing


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
    _C.noise(eps, num_samples, event_dims, seed, row_offset, torch.get_num_threads())
    return eps


def sample_kl_forward(
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
) -> tuple[Tensor, Tensor, Tensor | None]:
    return _C.sample_kl_forward(
        mean, logvar, prior_mean, prior_logvar, eps, seed, num_samples, event_dims, row_offset,
        bounds, control, return_dims, torch.get_num_threads(),
    )  # fmt: skip


def sample_kl_backward(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    grad_dims: Tensor | None,
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
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    return _C.sample_kl_backward(
        grad_z, grad_kl, grad_dims, mean, logvar, prior_mean, prior_logvar, eps, seed, num_samples,
        event_dims, row_offset, bounds, control, needs, torch.get_num_threads(),
    )  # fmt: skip


def gaussian_kl_forward(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
) -> Tensor:
    return _C.gaussian_kl_forward(
        mean, logvar, prior_mean, prior_logvar, event_dims, bounds, control, torch.get_num_threads()
    )


def gaussian_kl_backward(
    grad_kl: Tensor,
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    return _C.gaussian_kl_backward(
        grad_kl, mean, logvar, prior_mean, prior_logvar, event_dims, bounds, control, needs,
        torch.get_num_threads(),
    )  # fmt: skip


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
    return _C.sample_log_weights_forward(
        mean, logvar, prior_mean, prior_logvar, eps, seed, num_samples, event_dims, row_offset,
        sample_offset, bounds, torch.get_num_threads(),
    )  # fmt: skip


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
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    return _C.sample_log_weights_backward(
        grad_z, grad_log_ratio, path_weight, mean, logvar, prior_mean, prior_logvar, eps, seed,
        num_samples, event_dims, row_offset, sample_offset, bounds, path_only, needs,
        torch.get_num_threads(),
    )  # fmt: skip


def importance_weighted_elbo_forward(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    # They are one element for each event's worth of others: converting them costs little.
    compute = compute_dtype(log_weights)
    if log_weights.dtype is not compute or not log_weights.is_contiguous():
        require_memory(log_weights)
        log_weights = log_weights.to(compute).contiguous()
    return _C.importance_weighted_elbo_forward(log_weights, torch.get_num_threads())


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
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    return _C.score_function_backward(
        weight, mean, logvar, eps, seed, num_samples, event_dims, row_offset, bounds, needs,
        torch.get_num_threads(),
    )  # fmt: skip


def gaussian_log_likelihood_forward(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:
    return _C.gaussian_log_likelihood_forward(
        x, mean, logvar, event_dims, bounds, torch.get_num_threads()
    )


def squared_error_forward(x: Tensor, mean: Tensor, event_dims: int) -> Tensor:
    no_bounds = (0.0, 0.0)  # without a log-variance there is nothing to clamp
    return _C.squared_error_forward(x, mean, None, event_dims, no_bounds, torch.get_num_threads())


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
    grad_x, *gradients = _C.gaussian_log_likelihood_backward(
        grad_ll, scale, x, mean, logvar, event_dims, bounds, needs, torch.get_num_threads()
    )
    if grad_x is not None and grad_x.shape != x.shape:  # the samples share x
        grad_x = grad_x.sum(0).to(x.dtype)
    return grad_x, *gradients


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
        x, mean, logvar, kl, float(beta), REDUCTION_CODES[reduction], event_dims, bounds, needs,
        torch.get_num_threads(),
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
