"""The CUDA C++ kernels: tensors go to ``vae_fast._C.cuda``, which makes the results.

Of mixed dtypes, any tensor may be float32 beside a half-precision mean; one of another dtype is
converted to the type computed in, and its gradient back. Nothing here waits for the device: a seed,
a ``beta`` or a factor that lies there is read by the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast._backends import Needs, Unavailable, _cuda_status, _native, reference
from vae_fast._backends._native import DTYPE_CODES, REDUCTION_CODES
from vae_fast._backends.reference import compute_dtype
from vae_fast._control import KLControl
from vae_fast._storage import require_memory

_kernels: Any = getattr(_native.module, "cuda", None)

Tensors = Sequence[Tensor | None]
_NO_BOUNDS = (0.0, 0.0)  # without a log-variance there is nothing to clamp


def unavailable() -> Unavailable | None:
    return _native.missing or _cuda_status.unavailable(_kernels, _native.module.build_info())


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    require_memory(tensor)
    return tensor.to(dtype)


def _as_read(tensors: Tensors, like: torch.dtype) -> Tensors:
    """The tensors in dtypes that the kernels read side by side: ``like``, and float32."""
    for tensor in tensors:
        if tensor is not None and tensor.dtype is not like:
            break
    else:
        return tensors
    compute = torch.float64 if like is torch.float64 else compute_dtype(*tensors)
    alike = (compute,) if compute is torch.float64 else (like, compute)
    return tuple(t if t is None or t.dtype in alike else _converted(t, compute) for t in tensors)


def _as_read_beside(tensors: Tensors, mean: Tensor, other: Tensor) -> Tensors:
    """``_as_read`` like ``mean``; or in float64 where ``other``, which they meet in a sum or a
    product, is."""
    return _as_read(tensors, torch.float64 if other.dtype is torch.float64 else mean.dtype)


def _sampled(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    """``tensor``, of the samples' shape, in a dtype that is read beside ``like``'s."""
    if tensor is None or tensor.dtype is like.dtype:
        return tensor
    return _converted(tensor, compute_dtype(like))


def _returned(gradients: Tensors, tensors: Tensors) -> tuple[Tensor | None, ...]:
    """The gradients in the dtypes of the inputs that they are of."""
    return tuple(
        g if g is None or t is None or g.dtype is t.dtype else g.to(t.dtype)
        for g, t in zip(gradients, tensors, strict=True)
    )


def _made(needs: Needs, converted: bool) -> Needs:
    """``needs`` without tensors to write to where the inputs, and so their gradients, are of a
    dtype that is converted."""
    return tuple(need is not False for need in needs) if converted else needs


def noise(
    shape: tuple[int, ...],
    event_dims: int,
    num_samples: int | None,
    seed: int | Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    eps = torch.empty(
        shape if num_samples is None else (num_samples, *shape), dtype=dtype, device=device
    )
    if eps.numel() > 0:
        _kernels.noise(eps, num_samples, event_dims, seed, row_offset)
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
    inputs = _as_read((mean, logvar, prior_mean, prior_logvar), mean.dtype)
    read = inputs[0]
    assert read is not None
    z, kl, dims = _kernels.sample_kl_forward(
        *inputs, _sampled(eps, read), seed, num_samples, event_dims, row_offset, bounds, control,
        return_dims,
    )  # fmt: skip
    return z if read is mean else z.to(mean.dtype), kl, dims


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
    tensors = (mean, logvar, prior_mean, prior_logvar)
    inputs = _as_read(tensors, mean.dtype)
    read = inputs[0]
    assert read is not None
    gradients = _kernels.sample_kl_backward(
        _sampled(grad_z, read), grad_kl, grad_dims, *inputs, _sampled(eps, read), seed,
        num_samples, event_dims, row_offset, bounds, control, _made(needs, read is not mean),
    )  # fmt: skip
    return gradients if inputs is tensors else _returned(gradients, tensors)


def gaussian_kl_forward(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
) -> Tensor:
    inputs = _as_read((mean, logvar, prior_mean, prior_logvar), mean.dtype)
    return _kernels.gaussian_kl_forward(*inputs, event_dims, bounds, control)


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
    tensors = (mean, logvar, prior_mean, prior_logvar)
    inputs = _as_read(tensors, mean.dtype)
    gradients = _kernels.gaussian_kl_backward(
        grad_kl, *inputs, event_dims, bounds, control, _made(needs, inputs[0] is not mean)
    )
    return gradients if inputs is tensors else _returned(gradients, tensors)


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
    inputs = _as_read((mean, logvar, prior_mean, prior_logvar), mean.dtype)
    read = inputs[0]
    assert read is not None
    z, log_ratio = _kernels.sample_log_weights_forward(
        *inputs, _sampled(eps, read), seed, num_samples, event_dims, row_offset, sample_offset,
        bounds,
    )  # fmt: skip
    return z if read is mean else z.to(mean.dtype), log_ratio


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
    tensors = (mean, logvar, prior_mean, prior_logvar)
    inputs = _as_read(tensors, mean.dtype)
    read = inputs[0]
    assert read is not None
    gradients = _kernels.sample_log_weights_backward(
        _sampled(grad_z, read), grad_log_ratio, path_weight, *inputs, _sampled(eps, read), seed,
        num_samples, event_dims, row_offset, sample_offset, bounds, path_only,
        _made(needs, read is not mean),
    )  # fmt: skip
    return gradients if inputs is tensors else _returned(gradients, tensors)


def importance_weighted_elbo_forward(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    return _kernels.importance_weighted_elbo_forward(log_weights)


def score_function_backward(
    gradient: Tensor,
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
    # Of the mean there is only the gradient, in the dtype that it would be read in.
    wide = compute_dtype(mean, logvar) is torch.float64
    like = torch.float64 if wide else mean.dtype
    if like not in DTYPE_CODES:
        _native.refuse(mean, "kernels do not compute with its dtype")
    (read,) = _as_read((logvar,), like)
    if eps is not None and eps.dtype is not like:
        eps = _converted(eps, torch.float64 if wide else torch.float32)
    gradients = _kernels.score_function_backward(
        gradient, weight, mean, DTYPE_CODES[like], read, eps, seed, num_samples, event_dims,
        row_offset, bounds, _made(needs, like is not mean.dtype),
    )  # fmt: skip
    return _returned(gradients, (mean, logvar))


def gaussian_log_likelihood_forward(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:
    inputs = _as_read((x, mean, logvar), mean.dtype)
    return _kernels.gaussian_log_likelihood_forward(*inputs, event_dims, bounds)


def squared_error_forward(x: Tensor, mean: Tensor, event_dims: int) -> Tensor:
    inputs = _as_read((x, mean, None), mean.dtype)
    return _kernels.squared_error_forward(*inputs, event_dims, _NO_BOUNDS)


def squared_error_backward(
    gradient: Tensor, x: Tensor, mean: Tensor, event_dims: int, needs: Needs
) -> tuple[Tensor | None, ...]:
    return _decoder_backward(
        gradient, -2.0, x, mean, None, event_dims, _NO_BOUNDS, (*needs, False)
    )[:2]


def gaussian_log_likelihood_backward(
    grad_ll: Tensor,
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    return _decoder_backward(grad_ll, 1.0, x, mean, logvar, event_dims, bounds, needs)


def _decoder_backward(
    grad_ll: Tensor,  # broadcastable to [*samples, *batch]
    scale: float,  # of it
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    tensors = (x, mean, logvar)
    inputs = _as_read_beside(tensors, mean, grad_ll)
    grad_x, *gradients = _kernels.gaussian_log_likelihood_backward(
        grad_ll, scale, *inputs, event_dims, bounds, _made(needs, inputs[1] is not mean)
    )
    if grad_x is not None and grad_x.shape != x.shape:  # the samples share x
        grad_x = grad_x.sum(0)
    return _returned((grad_x, *gradients), tensors)


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
    if mean.numel() == 0:
        loss, log_likelihood = reference.negative_elbo(
            x, mean, logvar, kl, beta, reduction, event_dims, bounds
        )
        count = max(kl.numel(), 1) if reduction == "mean" else 1
        grad_kl = torch.ones_like(kl) * (beta / count) if needs[2] else None
        grad_mean = torch.zeros_like(mean) if needs[0] else None
        grad_logvar = torch.zeros_like(logvar) if needs[1] and logvar is not None else None
        return loss, log_likelihood, (grad_mean, grad_logvar, grad_kl)
    if isinstance(beta, Tensor) and beta.dtype not in DTYPE_CODES:
        beta = _converted(beta, torch.float64)
    inputs = _as_read_beside((x, mean, logvar), mean, kl)
    loss, log_likelihood, gradients = _kernels.negative_elbo_forward(
        *inputs, kl, beta, REDUCTION_CODES[reduction], event_dims, bounds,
        _made(needs, inputs[1] is not mean),
    )  # fmt: skip
    return loss, log_likelihood, _returned(gradients, (mean, logvar, kl))


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
    return _decoder_backward(grad_ll, scale, x, mean, logvar, event_dims, bounds, needs)


def scale_(gradients: tuple[Tensor | None, ...], factor: Tensor) -> None:
    """Multiplies each gradient by a 0-dim factor, in place; done at once if it is 1."""
    _kernels.scale(tuple(gradients), factor)
