"""The compiled C++ kernels: allocates the outputs and passes pointers to ``vae_fast._C``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vae_fast import memory
from vae_fast._backends import Unavailable
from vae_fast._backends._cpu_estimators import (
    importance_weighted_elbo_forward,
    sample_log_weights_backward,
    sample_log_weights_forward,
    score_function_backward,
)
from vae_fast._backends._cpu_tensors import (
    _column_output,
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
from vae_fast._control import KLControl

try:
    from vae_fast import _C

    _missing = None
except ImportError as error:
    _missing = Unavailable(
        f"the compiled module vae_fast._C cannot be imported ({error})",
        "install with a C++ compiler at hand and without VAE_FAST_NATIVE=0: `pip install .`, or "
        "`pip install -e .` to work in the source tree",
    )

__all__ = (
    "gaussian_kl_backward",
    "gaussian_kl_forward",
    "gaussian_log_likelihood_backward",
    "gaussian_log_likelihood_forward",
    "importance_weighted_elbo_forward",
    "negative_elbo_backward",
    "negative_elbo_forward",
    "noise",
    "sample_kl_backward",
    "sample_kl_forward",
    "sample_log_weights_backward",
    "sample_log_weights_forward",
    "scale_",
    "score_function_backward",
    "squared_error_forward",
    "unavailable",
)

_REDUCTIONS = {"mean": 0, "sum": 1, "none": 2}


def unavailable() -> Unavailable | None:
    return _missing


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
    _C.noise(
        shape, event_dims, num_samples or 1, seed, row_offset, _output(eps),
        torch.get_num_threads(),
    )  # fmt: skip
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
    shape = mean.shape
    z_shape = _with_samples(shape, num_samples)
    tensors = (mean, logvar, prior_mean, prior_logvar)
    operands = _operands(tensors, shape)
    dtype = compute_dtype(*tensors)
    z = _empty_like(mean, operands[0]) if num_samples is None else memory.empty(z_shape, mean.dtype)
    split = len(shape) - event_dims
    kl = _empty_rows(shape[:split], dtype)
    dims = _empty_rows(shape[split:], dtype) if return_dims else None
    _C.sample_kl_forward(
        shape, event_dims, num_samples or 1, operands,
        eps if eps is None else _sampled(eps, z_shape, num_samples), seed, row_offset, bounds,
        control, _output(z), _row_output(kl), None if dims is None else _column_output(dims),
        torch.get_num_threads(),
    )  # fmt: skip
    return z, kl, dims


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
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    shape = mean.shape
    z_shape = _with_samples(shape, num_samples)
    tensors = (mean, logvar, prior_mean, prior_logvar)
    operands = _operands(tensors, shape)
    gradients, outputs = _gradients(tensors, operands, needs, shape, event_dims)
    if grad_z is None and grad_kl is None and grad_dims is None:
        return tuple([None if g is None else g.zero_() for g in gradients])
    split = len(shape) - event_dims
    _C.sample_kl_backward(
        shape, event_dims, num_samples or 1, operands,
        eps if eps is None else _sampled(eps, z_shape, num_samples), seed, row_offset, bounds,
        control, _sampled(grad_z, z_shape, num_samples), _operand(grad_kl, shape[:split]),
        None if grad_dims is None else _operand(grad_dims, shape[split:]), outputs,
        torch.get_num_threads(),
    )  # fmt: skip
    return tuple(gradients)


def gaussian_kl_forward(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
) -> Tensor:
    shape = mean.shape
    tensors = (mean, logvar, prior_mean, prior_logvar)
    dtype = compute_dtype(*tensors)
    kl = _empty_rows(shape[: len(shape) - event_dims], dtype)
    _C.gaussian_kl_forward(
        shape, event_dims, _operands(tensors, shape), bounds, control, _row_output(kl),
        torch.get_num_threads(),
    )  # fmt: skip
    return kl


def gaussian_kl_backward(
    grad_kl: Tensor,
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    shape = mean.shape
    tensors = (mean, logvar, prior_mean, prior_logvar)
    operands = _operands(tensors, shape)
    gradients, outputs = _gradients(tensors, operands, needs, shape, event_dims)
    _C.gaussian_kl_backward(
        shape, event_dims, operands, bounds, control,
        _operand(grad_kl, shape[: len(shape) - event_dims]), outputs, torch.get_num_threads(),
    )  # fmt: skip
    return tuple(gradients)


def gaussian_log_likelihood_forward(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:
    shape = mean.shape
    tensors = (x, mean, logvar)
    dtype = compute_dtype(*tensors)
    log_likelihood = _empty_rows(shape[: len(shape) - event_dims], dtype)
    _C.gaussian_log_likelihood_forward(
        shape, event_dims, _operands(tensors, shape), bounds,
        _row_output(log_likelihood), torch.get_num_threads(),
    )  # fmt: skip
    return log_likelihood


def gaussian_log_likelihood_backward(
    grad_ll: Tensor,
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    shape = mean.shape
    tensors = (x, mean, logvar)
    dtype = compute_dtype(*tensors)
    shared_x = x.shape != shape
    grad_x = memory.empty(shape, dtype if shared_x else x.dtype) if needs[0] else None
    operands = _operands(tensors, shape)
    (grad_mean, grad_logvar), outputs = _gradients(
        tensors[1:], operands[1:], needs[1:], shape, event_dims
    )
    x_output = None if grad_x is None else _output(grad_x)
    _C.gaussian_log_likelihood_backward(
        shape, event_dims, operands, bounds,
        _operand(grad_ll, shape[: len(shape) - event_dims]),
        (x_output, *outputs), torch.get_num_threads(),
    )  # fmt: skip
    if grad_x is not None and shared_x:
        grad_x = grad_x.sum(0).to(x.dtype)
    return grad_x, grad_mean, grad_logvar


def squared_error_forward(x: Tensor, mean: Tensor, event_dims: int) -> Tensor:
    shape = mean.shape
    squared_error = _empty_rows(shape[: len(shape) - event_dims], compute_dtype(x, mean))
    _C.squared_error_forward(
        shape, event_dims, _operand(x, shape), _operand(mean, shape), _row_output(squared_error),
        torch.get_num_threads(),
    )  # fmt: skip
    return squared_error


def negative_elbo_forward(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    kl: Tensor,
    beta: float | Tensor,
    reduction: str,
    event_dims: int,
    bounds: tuple[float, float],
    needs: tuple[bool, ...],
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """The loss, the log-likelihood of each row, and the loss's gradients asked for.

    ``needs`` tells which, of mean, logvar and kl; none for the reduction "none".
    """
    shape = mean.shape
    tensors = (x, mean, logvar)
    dtype = compute_dtype(*tensors)
    loss_dtype = compute_dtype(*tensors, kl)
    loss = _empty_rows(kl.shape if reduction == "none" else torch.Size(), loss_dtype)
    log_likelihood = _empty_rows(kl.shape, dtype)
    operands, (kl_operand,) = _operands(tensors, shape), _operands((kl,), kl.shape)
    gradients, outputs = _gradients(tensors[1:], operands[1:], needs[:2], shape, event_dims)
    grad_kl = _empty_like(kl, kl_operand) if needs[2] else None
    _C.negative_elbo_forward(
        shape, event_dims, mean.shape[0] if mean.dim() > x.dim() else 1, operands, bounds,
        kl_operand, kl.shape, float(beta), _REDUCTIONS[reduction], _output(loss),
        _row_output(log_likelihood), (None, *outputs),
        grad_kl if grad_kl is None else _output(grad_kl), torch.get_num_threads(),
    )  # fmt: skip
    return loss, log_likelihood, [*gradients, grad_kl]


def negative_elbo_backward(
    grad_loss: Tensor,
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    reduction: str,
    event_dims: int,
    bounds: tuple[float, float],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The two-pass form: the gradients by x, mean and logvar for what arrives from above."""
    batch_shape = x.shape[: x.dim() - event_dims]
    samples = mean.shape[0] if mean.dim() > x.dim() else 1
    rows = math.prod(batch_shape) if reduction == "mean" else 1
    grad_ll = (grad_loss * (-1.0 / (max(rows, 1) * samples))).expand(batch_shape)
    grad_ll = grad_ll.expand(mean.shape[: mean.dim() - event_dims])
    return gaussian_log_likelihood_backward(grad_ll, x, mean, logvar, event_dims, bounds, needs)


def scale_(gradients: Sequence[Tensor | None], factor: Tensor) -> None:
    """Multiplies each gradient by a 0-dim factor, in place; nothing to do where it is 1."""
    if _C.value(_output(factor)) != 1.0:
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(factor)
