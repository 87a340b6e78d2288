"""The CUDA C++ kernels: allocates outputs on the device and passes pointers.

``_views`` says how tensors go down. Nothing here waits for the device: a seed, a ``beta`` or a
factor that lies there is read by the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast._backends import (
    Unavailable,
    _codes,
    _cuda_estimators,
    _cuda_status,
    _views,
    reference,
)
from vae_fast._backends.reference import compute_dtype
from vae_fast._control import KLControl

try:
    from vae_fast import _C

    _kernels: Any = getattr(_C, "cuda", None)
    _missing = None
except ImportError as error:
    _missing = Unavailable(
        f"the compiled module vae_fast._C cannot be imported ({error})",
        "install with a C++ and a CUDA compiler at hand and without VAE_FAST_NATIVE=0",
    )

_NO_NOISE = (0, None, 0)
_REDUCTIONS = {"mean": 0, "sum": 1, "none": 2}


def unavailable() -> Unavailable | None:
    return _missing or _cuda_status.unavailable(_kernels, _C.build_info())


def _stream(device: int) -> int:
    return torch._C._cuda_getCurrentRawStream(device)


def _context(
    device: torch.device, stream: int | None = None
) -> tuple[int, int, Callable[[int], int]]:
    """Where a call launches, the current stream if none is named, and who gives it memory."""
    memory: list[Tensor] = []

    def allocate(size: int) -> int:
        # Freed when the call has launched: who gets it next in this stream comes later.
        memory.append(torch.empty(size, dtype=torch.uint8, device=device))
        return memory[-1].data_ptr()

    index = 0 if device.index is None else device.index
    return index, _stream(index) if stream is None else stream, allocate


def _launching(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with the kernels that are here at a call, and where it launches."""
    return lambda *arguments: function(_kernels, _context, *arguments)


sample_log_weights_forward = _launching(_cuda_estimators.sample_log_weights_forward)
sample_log_weights_backward = _launching(_cuda_estimators.sample_log_weights_backward)
importance_weighted_elbo_forward = _launching(_cuda_estimators.importance_weighted_elbo_forward)
score_function_backward = _launching(_cuda_estimators.score_function_backward)


def noise(
    shape: tuple[int, ...],
    event_dims: int,
    num_samples: int | None,
    seed: int | Tensor,
    row_offset: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    z_shape = shape if num_samples is None else (num_samples, *shape)
    eps = torch.empty(z_shape, dtype=dtype, device=device)
    if eps.numel() == 0:
        return eps
    frame = _views.frame_of(z_shape, event_dims, num_samples is not None)
    _kernels.noise(
        frame.sizes,
        _views.noise(seed, row_offset, eps.device),
        _views.output(eps),
        _context(eps.device),
    )
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
    inputs = _views.as_read((mean, logvar, prior_mean, prior_logvar), mean)
    read = inputs[0]
    assert read is not None
    frame = _views.sample_frame(mean.shape, num_samples, event_dims)
    z = torch.empty(frame.shape, dtype=read.dtype, device=mean.device)
    kl, dims = _encoder_forward(
        _kernels.sample_kl_forward, inputs, event_dims, bounds, control, num_samples or 1,
        _views.sampled(eps, frame, read), _views.noise(seed, row_offset, mean.device), z,
        return_dims,
    )  # fmt: skip
    return z.to(mean.dtype), kl, dims


def gaussian_kl_forward(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
) -> Tensor:
    inputs = _views.as_read((mean, logvar, prior_mean, prior_logvar), mean)
    return _encoder_forward(_kernels.gaussian_kl_forward, inputs, event_dims, bounds, control)[0]


def _encoder_forward(
    kernel: Callable[..., None],
    inputs: tuple[Tensor | None, ...],
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
    samples: int = 1,
    eps: _views.Operand | None = None,
    noise: tuple[Any, ...] = _NO_NOISE,
    z: Tensor | None = None,
    return_dims: bool = False,
) -> tuple[Tensor, Tensor | None]:
    mean = inputs[0]
    assert mean is not None
    frame = _views.frame_of(mean.shape, event_dims, samples=False)
    make = torch.empty if mean.numel() > 0 else torch.zeros
    options: Any = {"dtype": compute_dtype(*inputs), "device": mean.device}
    kl = make(mean.shape[: frame.last], **options)
    dims = make(mean.shape[frame.last :], **options) if return_dims else None
    if mean.numel() > 0:
        kernel(
            (samples, *frame.sizes[1:]),
            tuple([_views.operand(t, frame, adjacent=t is mean) for t in inputs]),
            bounds, eps, noise, control, None if z is None else _views.output(z),
            _views.output(kl, _codes.ROW),
            None if dims is None else _views.output(dims, _codes.COLUMN), _context(mean.device),
        )  # fmt: skip
    return kl, dims


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
    tensors = (mean, logvar, prior_mean, prior_logvar)
    if grad_z is None and grad_kl is None and grad_dims is None:
        return _views.zeros(tensors, needs)
    inputs = _views.as_read(tensors, mean)
    read = inputs[0]
    assert read is not None
    frame = _views.sample_frame(mean.shape, num_samples, event_dims)
    gradients = _encoder_backward(
        _kernels.sample_kl_backward, grad_kl, inputs, needs, event_dims, bounds, control,
        num_samples or 1, _views.sampled(eps, frame, read),
        _views.noise(seed, row_offset, mean.device), _views.sampled(grad_z, frame, read), grad_dims,
    )  # fmt: skip
    return _views.returned(gradients, tensors)


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
    tensors = (mean, logvar, prior_mean, prior_logvar)
    inputs = _views.as_read(tensors, mean)
    gradients = _encoder_backward(
        _kernels.gaussian_kl_backward, grad_kl, inputs, needs, event_dims, bounds, control
    )
    return _views.returned(gradients, tensors)


def _encoder_backward(
    kernel: Callable[..., None],
    grad_kl: Tensor | None,
    inputs: tuple[Tensor | None, ...],
    needs: Sequence[bool],
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
    samples: int = 1,
    eps: _views.Operand | None = None,
    noise: tuple[Any, ...] = _NO_NOISE,
    grad_z: _views.Operand | None = None,
    grad_dims: Tensor | None = None,
) -> Sequence[Tensor | None]:
    mean = inputs[0]
    assert mean is not None
    if mean.numel() == 0:
        return _views.zeros(inputs, needs)
    frame = _views.frame_of(mean.shape, event_dims, samples=False)
    gradients, outputs = _views.new_gradients(inputs, needs, frame)
    kernel(
        (samples, *frame.sizes[1:]),
        tuple([_views.operand(t, frame, adjacent=t is mean) for t in inputs]),
        bounds, eps, noise, control, grad_z, _views.by_row(grad_kl, frame),
        _views.operand(
            grad_dims, _views.frame_of(frame.shape[frame.last :], event_dims, samples=False)
        ),
        outputs, _context(mean.device),
    )  # fmt: skip
    return gradients


def gaussian_log_likelihood_forward(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:
    inputs = (x, mean, logvar)
    return _decoder_forward(_kernels.gaussian_log_likelihood_forward, inputs, event_dims, bounds)


def squared_error_forward(x: Tensor, mean: Tensor, event_dims: int) -> Tensor:
    inputs = (x, mean, None)
    return _decoder_forward(_kernels.squared_error_forward, inputs, event_dims, (0.0, 0.0))


def _decoder_forward(
    kernel: Callable[..., None],
    tensors: tuple[Tensor, Tensor, Tensor | None],  # x, mean, logvar
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:
    x, mean, _ = tensors
    frame = _views.decoder_frame(x, mean, event_dims)
    inputs = _views.as_read(tensors, mean)
    make = torch.empty if mean.numel() > 0 else torch.zeros
    value = make(frame.shape[: frame.last], dtype=compute_dtype(*inputs), device=mean.device)
    if mean.numel() > 0:
        kernel(
            frame.sizes, _views.decoder_operands(inputs, frame), bounds,
            _views.output(value, _codes.ROW), _context(mean.device),
        )  # fmt: skip
    return value


def gaussian_log_likelihood_backward(
    grad_ll: Tensor,
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    needs: tuple[bool, ...],
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
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    tensors = (x, mean, logvar)
    if mean.numel() == 0:
        return _views.zeros(tensors, needs)
    frame = _views.decoder_frame(x, mean, event_dims)
    inputs = _views.as_read(tensors, mean)
    gradients, outputs = _views.new_gradients(inputs[1:], needs[1:], frame)
    shared_x = x.shape != mean.shape
    grad_x = None
    if needs[0]:  # one for each sample, if x is shared: summed below, and rounded after that
        read = inputs[0]
        assert read is not None
        dtype = compute_dtype(*inputs) if shared_x else read.dtype
        grad_x = torch.empty(mean.shape, dtype=dtype, device=mean.device)
    _kernels.gaussian_log_likelihood_backward(
        frame.sizes, _views.decoder_operands(inputs, frame), bounds,
        _views.by_row(grad_ll, frame), scale,
        (None if grad_x is None else _views.output(grad_x), *outputs), _context(mean.device),
    )  # fmt: skip
    if grad_x is not None and shared_x:
        grad_x = grad_x.sum(0)
    return _views.returned((grad_x, *gradients), tensors)


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
        return loss, log_likelihood, (*_views.zeros((mean, logvar), needs[:2]), grad_kl)
    frame = _views.decoder_frame(x, mean, event_dims)
    inputs = _views.as_read((x, mean, logvar), mean)
    loss_shape = kl.shape if reduction == "none" else ()
    loss = torch.empty(loss_shape, dtype=compute_dtype(*inputs, kl), device=mean.device)
    log_likelihood = torch.empty(kl.shape, dtype=compute_dtype(*inputs), device=mean.device)
    gradients, outputs = _views.new_gradients(inputs[1:], needs[:2], frame)
    grad_kl = torch.empty(kl.shape, dtype=kl.dtype, device=kl.device) if needs[2] else None
    beta_at, _alive = _views.scalar(beta, mean.device)
    _kernels.negative_elbo_forward(
        frame.sizes, _views.decoder_operands(inputs, frame), bounds,
        _views.operand(kl, _views.frame_of(kl.shape, 0, samples=False)), beta_at,
        _REDUCTIONS[reduction], _views.output(loss), _views.output(log_likelihood, _codes.ROW),
        (None, *outputs), grad_kl if grad_kl is None else _views.output(grad_kl),
        _context(mean.device),
    )  # fmt: skip
    return loss, log_likelihood, (*_views.returned(gradients, (mean, logvar)), grad_kl)


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
    grad_ll = grad_loss.expand(batch_shape).expand(mean.shape[: mean.dim() - event_dims])
    scale = -1.0 / (max(rows, 1) * max(samples, 1))
    return _decoder_backward(grad_ll, scale, x, mean, logvar, event_dims, bounds, needs)


def scale_(gradients: tuple[Tensor | None, ...], factor: Tensor) -> None:
    """Multiplies each gradient by a 0-dim factor, in place; done at once if it is 1."""
    given = tuple(
        (g.data_ptr(), _codes.DTYPES[g.dtype], g.numel())
        for g in gradients
        if g is not None and g.numel() > 0
    )
    if given:
        factor_at, _alive = _views.scalar(factor, factor.device)
        _kernels.scale(given, factor_at, _context(factor.device))
