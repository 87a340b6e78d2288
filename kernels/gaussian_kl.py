"""``gaussian_kl``: the KL divergence of each row, and its gradients."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from vae_fast._backends import Needs
from vae_fast._control import KLControl
from vae_fast.kernels.arguments import control_arguments
from vae_fast.kernels.gaussian import (
    at_least,
    clamp,
    gate,
    kl_grad_logvar,
    kl_grad_mean,
    kl_grad_prior_logvar,
    kl_parts,
    kl_upstream,
    kl_value,
)
from vae_fast.kernels.launch import Call, gradient_forms, upstream
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

# Arguments that are not compiled in, whatever their value.
SIZES = ("rows", "cols", "tiles", "mean_stride", "logvar_stride", "prior_mean_stride",
         "prior_logvar_stride")  # fmt: skip
CONTROL = ("floor", "posterior_weight", "prior_weight")


class GaussianForms(NamedTuple):
    """How each argument lies in memory, or over what its gradient is a sum."""

    mean: int
    logvar: int
    prior_mean: int
    prior_logvar: int


@triton.jit
def load_gaussians(
    p_mean, p_logvar, p_prior_mean, p_prior_logvar, strides, at,
    FORMS: tl.constexpr, MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """m, v, p_m and p_v at the tile's elements, before any clamp."""
    b_m = load(p_mean, strides[0], at, 1, FORMS.mean, MASKED, T)
    b_v = load(p_logvar, strides[1], at, 1, FORMS.logvar, MASKED, T)
    b_pm = load(p_prior_mean, strides[2], at, 1, FORMS.prior_mean, MASKED, T)
    b_pv = load(p_prior_logvar, strides[3], at, 1, FORMS.prior_logvar, MASKED, T)
    return b_m, b_v, b_pm, b_pv


@triton.jit
def new_sums(GRADS: tl.constexpr, T: tl.constexpr):
    return (
        new_sum(GRADS.mean, T),
        new_sum(GRADS.logvar, T),
        new_sum(GRADS.prior_mean, T),
        new_sum(GRADS.prior_logvar, T),
    )


@triton.jit
def add_gradients(
    outputs, sums, grad_m, grad_v, grad_pm, grad_pv, at, tile, rows, cols,
    GRADS: tl.constexpr, MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    return (
        add_gradient(outputs[0], sums[0], grad_m, at, tile, rows, cols, GRADS.mean, MASKED, T),
        add_gradient(outputs[1], sums[1], grad_v, at, tile, rows, cols, GRADS.logvar, MASKED, T),
        add_gradient(
            outputs[2], sums[2], grad_pm, at, tile, rows, cols, GRADS.prior_mean, MASKED, T
        ),
        add_gradient(
            outputs[3], sums[3], grad_pv, at, tile, rows, cols, GRADS.prior_logvar, MASKED, T
        ),
    )


@triton.jit
def store_sums(outputs, sums, group, program, at, cols, GRADS: tl.constexpr, T: tl.constexpr):
    store_sum(outputs[0], sums[0], group, program, at, cols, GRADS.mean, T)
    store_sum(outputs[1], sums[1], group, program, at, cols, GRADS.logvar, T)
    store_sum(outputs[2], sums[2], group, program, at, cols, GRADS.prior_mean, T)
    store_sum(outputs[3], sums[3], group, program, at, cols, GRADS.prior_logvar, T)


@triton.jit
def store_kl(p_kl, b_kl, at, tile, rows):
    """The sum of the tile's elements of each row, [tiles, N]."""
    tl.store(p_kl + (tile * rows + at[0]), sum_rows(b_kl, at), mask=at[1])


@triton.jit
def gaussian_kl_fwd_tile(
    p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_kl, strides, floor, at, tile, rows,
    FORMS: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, MASKED: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    b_m, b_v, b_pm, b_pv = load_gaussians(
        p_mean, p_logvar, p_prior_mean, p_prior_logvar, strides, at, FORMS, MASKED, T
    )
    difference, scaled, _, ratio_minus = kl_parts(
        b_m, clamp(b_v, LOW, HIGH), b_pm, clamp(b_pv, LOW, HIGH), FORMS.prior_logvar != ABSENT
    )
    b_kl = at_least(kl_value(difference, scaled, ratio_minus), floor, T.COMPUTE)
    store_kl(p_kl, b_kl, at, tile, rows)


@triton.jit(do_not_specialize=(*SIZES, "floor"))
def gaussian_kl_fwd_kernel(
    p_mean,  # [N, D]
    p_logvar, p_prior_mean, p_prior_logvar,  # in the form FORMS says
    p_kl,  # [tiles, N], float32 or float64
    rows, cols, tiles,
    mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride,
    floor,  # of an element, or None
    FORMS: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    at = locate((pid // tiles).to(tl.int64), tile, rows, cols, 0, T)
    strides = (mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride)
    if is_whole(at, rows, cols, T):
        gaussian_kl_fwd_tile(p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_kl, strides,
                             floor, at, tile, rows, FORMS, LOW, HIGH, False, T)  # fmt: skip
    else:
        gaussian_kl_fwd_tile(p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_kl, strides,
                             floor, at, tile, rows, FORMS, LOW, HIGH, True, T)  # fmt: skip


@triton.jit
def gaussian_kl_bwd_tile(
    p_grad_kl, p_mean, p_logvar, p_prior_mean, p_prior_logvar, outputs, sums, strides, control,
    at, tile, rows, cols,
    FORMS: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, LOW: tl.constexpr,
    HIGH: tl.constexpr, MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    b_m, b_v, b_pm, b_pv = load_gaussians(
        p_mean, p_logvar, p_prior_mean, p_prior_logvar, strides, at, FORMS, MASKED, T
    )
    b_g = load_rows(p_grad_kl, at, 1, UPSTREAM, T)
    v, p_v = clamp(b_v, LOW, HIGH), clamp(b_pv, LOW, HIGH)
    difference, scaled, ratio, ratio_minus = kl_parts(
        b_m, v, b_pm, p_v, FORMS.prior_logvar != ABSENT
    )
    b_kl = kl_value(difference, scaled, ratio_minus)
    g, prior_g = kl_upstream(b_g, b_kl, control, T.COMPUTE)
    grad_v = gate(b_v, v, kl_grad_logvar(g, ratio))
    grad_pv = gate(b_pv, p_v, kl_grad_prior_logvar(prior_g, difference, scaled, ratio))
    return add_gradients(
        outputs, sums, kl_grad_mean(g, scaled), grad_v, -kl_grad_mean(prior_g, scaled), grad_pv,
        at, tile, rows, cols, GRADS, MASKED, T,
    )  # fmt: skip


@triton.jit(do_not_specialize=(*SIZES, *CONTROL), do_not_specialize_on_alignment=["row_tiles"])
def gaussian_kl_bwd_kernel(
    p_grad_kl,  # [N], or one value for all rows
    p_mean,  # [N, D]
    p_logvar, p_prior_mean, p_prior_logvar,  # in the form FORMS says
    p_grad_mean, p_grad_logvar, p_grad_prior_mean, p_grad_prior_logvar,  # as GRADS says
    rows, cols, tiles, row_tiles,
    mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride,
    floor, posterior_weight, prior_weight,  # of an element's KL and its gradients, or None each
    FORMS: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, LOW: tl.constexpr,
    HIGH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    group = (pid // tiles).to(tl.int64)
    strides = (mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride)
    control = (floor, posterior_weight, prior_weight)
    outputs = (p_grad_mean, p_grad_logvar, p_grad_prior_mean, p_grad_prior_logvar)
    sums = new_sums(GRADS, T)
    for i in range(row_tiles):
        at = locate(group * row_tiles + i, tile, rows, cols, 0, T)
        if is_whole(at, rows, cols, T):
            sums = gaussian_kl_bwd_tile(
                p_grad_kl, p_mean, p_logvar, p_prior_mean, p_prior_logvar, outputs, sums, strides,
                control, at, tile, rows, cols, FORMS, GRADS, UPSTREAM, LOW, HIGH, False, T,
            )  # fmt: skip
        else:
            sums = gaussian_kl_bwd_tile(
                p_grad_kl, p_mean, p_logvar, p_prior_mean, p_prior_logvar, outputs, sums, strides,
                control, at, tile, rows, cols, FORMS, GRADS, UPSTREAM, LOW, HIGH, True, T,
            )  # fmt: skip
    at = locate(group * row_tiles, tile, rows, cols, 0, T)
    store_sums(outputs, sums, group, pid, at, cols, GRADS, T)


@replayed
def gaussian_kl_forward(
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    event_dims: int,
    bounds: tuple[float, float],
    control: KLControl,
) -> Tensor:  # [*batch]
    call = Call((mean, logvar, prior_mean, prior_logvar), mean.shape, event_dims)
    tiling = call.divide()
    kl = call.new(mean.shape[: mean.dim() - event_dims])
    floor, _, _ = control_arguments(control, call.compute)
    call.run(
        gaussian_kl_fwd_kernel, *call.tensors, call.summed(kl, call.tiles), call.rows, call.cols,
        call.tiles, *call.strides, floor, GaussianForms(*call.forms), *bounds, tiling,
    )  # fmt: skip
    return kl


@replayed
def gaussian_kl_backward(
    grad_kl: Tensor,  # [*batch]
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
    grads = GaussianForms(*gradient_forms(tensors, needs, mean.shape, event_dims))
    call = Call(tensors, mean.shape, event_dims, grads=grads)
    tiling = call.divide()
    made = [call.gradient(*each) for each in zip(tensors, grads, needs, strict=True)]
    grad_rows, form = upstream(grad_kl, call.rows)
    call.run(
        gaussian_kl_bwd_kernel, grad_rows, *call.tensors, *(place for _, place in made), call.rows,
        call.cols, call.tiles, call.row_tiles, *call.strides,
        *control_arguments(control, call.compute), GaussianForms(*call.forms), grads, form,
        *bounds, tiling,
    )  # fmt: skip
    return tuple(gradient for gradient, _ in made)
