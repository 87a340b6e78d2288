"""``gaussian_log_likelihood``: the log-density of each row, and its gradients.

``squared_error`` is in value another output of the same kernel, and in its gradients this op.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from vae_fast._backends import Needs
from vae_fast.kernels.arguments import readable
from vae_fast.kernels.gaussian import (
    clamp,
    gate,
    log_density,
    log_density_grad_logvar,
    log_density_grad_mean,
    unit_log_density,
)
from vae_fast.kernels.launch import ABSENT as ABSENT_
from vae_fast.kernels.launch import FULL as FULL_
from vae_fast.kernels.launch import ROW as ROW_
from vae_fast.kernels.launch import WRAPPED as WRAPPED_
from vae_fast.kernels.launch import Call, gradient_forms, require_count, upstream
from vae_fast.kernels.replay import replayed
from vae_fast.kernels.tile import (
    ABSENT,
    add_gradient,
    is_whole,
    load,
    load_rows,
    locate,
    new_sum,
    store_sum,
    sum_rows,
)

NO_BOUNDS = (0.0, 0.0)  # of a log-variance that is not there
# Arguments that are not compiled in, whatever their value.
SIZES = ("rows", "cols", "tiles", "period", "x_stride", "mean_stride", "logvar_stride")


class LikelihoodForms(NamedTuple):
    """How each argument lies in memory, or over what its gradient is a sum."""

    x: int
    mean: int
    logvar: int


@triton.jit
def load_density(
    p_x, p_mean, p_logvar, strides, at, period,
    FORMS: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, MASKED: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    """(x - m) e^-v, (x - m)^2 e^-v, the log-density, and v before and after the clamp."""
    b_x = load(p_x, strides[0], at, period, FORMS.x, MASKED, T)
    b_m = load(p_mean, strides[1], at, period, FORMS.mean, MASKED, T)
    b_v = load(p_logvar, strides[2], at, period, FORMS.logvar, MASKED, T)
    if FORMS.logvar != ABSENT:
        v = clamp(b_v, LOW, HIGH)
        scaled, square, value = log_density(b_x, b_m, v)
        return scaled, square, value, b_v, v
    else:
        scaled, square, value = unit_log_density(b_x, b_m)
        return scaled, square, value, b_v, b_v


@triton.jit
def log_likelihood_fwd_tile(
    p_x, p_mean, p_logvar, p_ll, strides, at, tile, rows, period,
    FORMS: tl.constexpr, SQUARE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
    MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    _, square, value, _, _ = load_density(
        p_x, p_mean, p_logvar, strides, at, period, FORMS, LOW, HIGH, MASKED, T
    )
    if SQUARE:
        value = square
    tl.store(p_ll + (tile * rows + at[0]), sum_rows(value, at), mask=at[1])


@triton.jit(do_not_specialize=SIZES)
def gaussian_log_likelihood_fwd_kernel(
    p_x, p_mean, p_logvar,  # [N, D], or in the form FORMS says
    p_ll,  # [tiles, N], float32 or float64
    rows, cols, tiles, period,
    x_stride, mean_stride, logvar_stride,
    FORMS: tl.constexpr,
    SQUARE: tl.constexpr,  # (x - m)^2 e^-v instead of the log-density
    LOW: tl.constexpr, HIGH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    at = locate((pid // tiles).to(tl.int64), tile, rows, cols, 0, T)
    strides = (x_stride, mean_stride, logvar_stride)
    if is_whole(at, rows, cols, T):
        log_likelihood_fwd_tile(p_x, p_mean, p_logvar, p_ll, strides, at, tile, rows, period,
                                FORMS, SQUARE, LOW, HIGH, False, T)  # fmt: skip
    else:
        log_likelihood_fwd_tile(p_x, p_mean, p_logvar, p_ll, strides, at, tile, rows, period,
                                FORMS, SQUARE, LOW, HIGH, True, T)  # fmt: skip


@triton.jit
def log_likelihood_bwd_tile(
    p_grad_ll, divisor, p_x, p_mean, p_logvar, outputs, sums, strides, at, tile, rows, cols,
    period,
    FORMS: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, LOW: tl.constexpr,
    HIGH: tl.constexpr, MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    scaled, square, _, b_v, v = load_density(
        p_x, p_mean, p_logvar, strides, at, period, FORMS, LOW, HIGH, MASKED, T
    )
    b_g = load_rows(p_grad_ll, at, period, UPSTREAM, T) / divisor
    pull = log_density_grad_mean(b_g, scaled)
    return (
        add_gradient(outputs[0], sums[0], -pull, at, tile, rows, cols, GRADS.x, MASKED, T),
        add_gradient(outputs[1], sums[1], pull, at, tile, rows, cols, GRADS.mean, MASKED, T),
        add_gradient(outputs[2], sums[2], gate(b_v, v, log_density_grad_logvar(b_g, square)),
                     at, tile, rows, cols, GRADS.logvar, MASKED, T),
    )  # fmt: skip


@triton.jit(
    do_not_specialize=(*SIZES, "divisor"), do_not_specialize_on_alignment=["row_tiles"]
)  # fmt: skip
def gaussian_log_likelihood_bwd_kernel(
    p_grad_ll,  # [N], of one sample's rows, or one value for all
    divisor,  # of the gradient that arrives
    p_x, p_mean, p_logvar,  # [N, D], or in the form FORMS says
    p_grad_x, p_grad_mean, p_grad_logvar,  # as GRADS says
    rows, cols, tiles, row_tiles, period,
    x_stride, mean_stride, logvar_stride,
    FORMS: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, LOW: tl.constexpr,
    HIGH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    group = (pid // tiles).to(tl.int64)
    strides = (x_stride, mean_stride, logvar_stride)
    outputs = (p_grad_x, p_grad_mean, p_grad_logvar)
    scale = divisor.to(T.COMPUTE)
    sums = (new_sum(GRADS.x, T), new_sum(GRADS.mean, T), new_sum(GRADS.logvar, T))
    for i in range(row_tiles):
        at = locate(group * row_tiles + i, tile, rows, cols, 0, T)
        if is_whole(at, rows, cols, T):
            sums = log_likelihood_bwd_tile(
                p_grad_ll, scale, p_x, p_mean, p_logvar, outputs, sums, strides, at, tile, rows,
                cols, period, FORMS, GRADS, UPSTREAM, LOW, HIGH, False, T,
            )  # fmt: skip
        else:
            sums = log_likelihood_bwd_tile(
                p_grad_ll, scale, p_x, p_mean, p_logvar, outputs, sums, strides, at, tile, rows,
                cols, period, FORMS, GRADS, UPSTREAM, LOW, HIGH, True, T,
            )  # fmt: skip
    at = locate(group * row_tiles, tile, rows, cols, 0, T)
    store_sum(p_grad_logvar, sums[2], group, pid, at, cols, GRADS.logvar, T)


def samples_of(x: Tensor, mean: Tensor) -> int:
    """The leading sample axis of mean, which x is broadcast over."""
    return mean.shape[0] if mean.dim() > x.dim() else 1


def _forward(
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    square: bool,
) -> Tensor:
    call = Call((x, mean, logvar), mean.shape, event_dims, samples=samples_of(x, mean))
    tiling = call.divide()
    ll = call.new(mean.shape[: mean.dim() - event_dims])
    call.run(
        gaussian_log_likelihood_fwd_kernel, *call.tensors, call.summed(ll, call.tiles), call.rows,
        call.cols, call.tiles, call.period, *call.strides, LikelihoodForms(*call.forms), square,
        *bounds, tiling,
    )  # fmt: skip
    return ll


@replayed
def gaussian_log_likelihood_forward(
    x: Tensor,  # [*batch, *event], or without the leading dimension of mean
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor | None,  # broadcastable to mean
    event_dims: int,
    bounds: tuple[float, float],
) -> Tensor:  # [*batch]
    return _forward(x, mean, logvar, event_dims, bounds, False)


@replayed
def squared_error_forward(
    x: Tensor,  # [*batch, *event], or without the leading dimension of mean
    mean: Tensor,  # [*batch, *event]
    event_dims: int,
) -> Tensor:  # [*batch]
    return _forward(x, mean, None, event_dims, NO_BOUNDS, True)


def squared_error_backward(
    gradient: Tensor,  # [*batch] of mean
    x: Tensor,
    mean: Tensor,
    event_dims: int,
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    return gaussian_log_likelihood_backward(
        -2 * readable(gradient), x, mean, None, event_dims, NO_BOUNDS, (*needs, False)
    )[:2]


@replayed
def gaussian_log_likelihood_backward(
    grad_ll: Tensor,  # [*batch] of mean, or of x
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,
    divisor: int = 1,  # of grad_ll
) -> tuple[Tensor | None, ...]:
    samples = samples_of(x, mean)
    require_count(x, mean.numel() // max(samples, 1))
    grads = LikelihoodForms(
        FULL_ if needs[0] else ABSENT_,  # a shared x: an element of each sample, summed at the end
        *gradient_forms((mean, logvar), needs[1:], mean.shape, event_dims),
    )
    call = Call(
        (x, mean, logvar), mean.shape, event_dims, samples=samples, grads=grads, also=(grad_ll,)
    )
    tiling = call.divide()
    grad_x = call.new(x.shape, x.dtype) if needs[0] else None
    place_x = None if grad_x is None else call.summed(grad_x, samples)
    made = [call.gradient(*each) for each in zip((mean, logvar), grads[1:], needs[1:], strict=True)]
    rows_fewer = samples > 1 and grad_ll.numel() != call.rows
    grad_rows, form = upstream(grad_ll, call.rows, call.rows // max(samples, 1), 1)
    if form == ROW_ and rows_fewer:
        form = WRAPPED_
    call.run(
        gaussian_log_likelihood_bwd_kernel, grad_rows, divisor, *call.tensors, place_x,
        *(place for _, place in made), call.rows, call.cols, call.tiles, call.row_tiles,
        call.period, *call.strides, LikelihoodForms(*call.forms), grads, form, *bounds, tiling,
    )  # fmt: skip
    return grad_x, *(gradient for gradient, _ in made)
