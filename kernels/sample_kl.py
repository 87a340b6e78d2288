"""``sample_kl``: samples of the posterior and its KL divergence, and their gradients.

Mean and log-variance are read once, however many samples there are. The backward pass makes the
noise again: neither it nor the standard deviation is stored.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from vae_fast._backends import Needs
from vae_fast._control import KLControl
from vae_fast.kernels.arguments import control_arguments
from vae_fast.kernels.gaussian import (
    add_slope,
    at_least,
    clamp,
    deviation_and_kl_parts,
    gate,
    kl_grad_logvar,
    kl_grad_mean,
    kl_grad_prior_logvar,
    kl_upstream,
    kl_value,
    slope_grad_logvar,
)
from vae_fast.kernels.gaussian_kl import (
    CONTROL,
    SIZES,
    GaussianForms,
    add_gradients,
    load_gaussians,
    new_sums,
    store_kl,
    store_sums,
)
from vae_fast.kernels.launch import ABSENT as ABSENT_
from vae_fast.kernels.launch import COLUMN as COLUMN_
from vae_fast.kernels.launch import ROW as ROW_
from vae_fast.kernels.launch import Call, contiguous, gradient_forms, upstream
from vae_fast.kernels.noise import KEY_SIZES, NO_NOISE, Noise, load_key, noise_of_tile
from vae_fast.kernels.replay import replayed
from vae_fast.kernels.tile import (
    ABSENT,
    add_gradient,
    is_whole,
    load,
    load_elements,
    load_rows,
    locate,
    new_sum,
    offsets,
    plane,
    store_elements,
    store_sum,
)

_SIZES = (*SIZES, *KEY_SIZES, *CONTROL)


@triton.jit
def sample_kl_fwd_tile(
    p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_eps, p_z, p_kl, p_dims, b_dims, strides,
    floor, key, first, at, tile, rows, cols, samples,
    FORMS: tl.constexpr, DIMS: tl.constexpr, NOISE: tl.constexpr, LOW: tl.constexpr,
    HIGH: tl.constexpr, MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    b_m, b_v, b_pm, b_pv = load_gaussians(
        p_mean, p_logvar, p_prior_mean, p_prior_logvar, strides, at, FORMS, MASKED, T
    )
    v, p_v = clamp(b_v, LOW, HIGH), clamp(b_pv, LOW, HIGH)
    deviation, difference, scaled, _, ratio_minus = deviation_and_kl_parts(
        b_m, v, b_pm, p_v, FORMS.prior_logvar != ABSENT
    )
    place = offsets(at, at[0], cols, T)
    for sample in range(samples):
        there = plane(sample, rows, cols, T) + place
        eps = noise_of_tile(p_eps, there, key, first, sample, at, cols, NOISE, MASKED, T)
        store_elements(p_z, there, tl.fma(deviation, eps, b_m), at[4], MASKED)
    b_kl = at_least(kl_value(difference, scaled, ratio_minus), floor, T.COMPUTE)
    store_kl(p_kl, b_kl, at, tile, rows)
    return add_gradient(p_dims, b_dims, b_kl, at, tile, rows, cols, DIMS, MASKED, T)


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=["samples", "row_tiles"])
def sample_kl_fwd_kernel(
    p_mean,  # [N, D]
    p_logvar, p_prior_mean, p_prior_logvar,  # in the form FORMS says
    p_eps,  # [L, N, D] where NOISE is GIVEN
    p_z,  # [L, N, D]
    p_kl,  # [tiles, N], float32 or float64
    p_dims,  # [groups, D], unless DIMS is ABSENT
    rows, cols, tiles, row_tiles, samples,
    mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride,
    floor,  # of an element's KL, or None
    p_seed, key_low, key_high, first,
    FORMS: tl.constexpr, DIMS: tl.constexpr, NOISE: tl.constexpr, LOW: tl.constexpr,
    HIGH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    group = (pid // tiles).to(tl.int64)
    strides = (mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride)
    key = load_key(p_seed, key_low, key_high)
    b_dims = new_sum(DIMS, T)
    for i in range(row_tiles):
        at = locate(group * row_tiles + i, tile, rows, cols, first, T)
        if is_whole(at, rows, cols, T):
            b_dims = sample_kl_fwd_tile(
                p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_eps, p_z, p_kl, p_dims, b_dims,
                strides, floor, key, first, at, tile, rows, cols, samples, FORMS, DIMS, NOISE, LOW,
                HIGH, False, T,
            )  # fmt: skip
        else:
            b_dims = sample_kl_fwd_tile(
                p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_eps, p_z, p_kl, p_dims, b_dims,
                strides, floor, key, first, at, tile, rows, cols, samples, FORMS, DIMS, NOISE, LOW,
                HIGH, True, T,
            )  # fmt: skip
    at = locate(group * row_tiles, tile, rows, cols, first, T)
    store_sum(p_dims, b_dims, group, pid, at, cols, DIMS, T)


@triton.jit
def load_upstream(
    p_rows, p_cols, at, ROWS: tl.constexpr, COLS: tl.constexpr, MASKED: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    """What arrives for the KL of each element: by its row, by its column, or by both."""
    if COLS == ABSENT:
        return load_rows(p_rows, at, 1, ROWS, T)
    elif ROWS == ABSENT:
        return load(p_cols, 0, at, 1, COLS, MASKED, T)
    else:
        return load_rows(p_rows, at, 1, ROWS, T) + load(p_cols, 0, at, 1, COLS, MASKED, T)


@triton.jit
def sample_kl_bwd_tile(
    p_grad_z, p_grad_kl, p_grad_dims, p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_eps,
    outputs, sums, strides, control, key, first, at, tile, rows, cols, samples,
    FORMS: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, DIMS: tl.constexpr,
    NOISE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, MASKED: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    b_m, b_v, b_pm, b_pv = load_gaussians(
        p_mean, p_logvar, p_prior_mean, p_prior_logvar, strides, at, FORMS, MASKED, T
    )
    v, p_v = clamp(b_v, LOW, HIGH), clamp(b_pv, LOW, HIGH)
    deviation, difference, scaled, ratio, ratio_minus = deviation_and_kl_parts(
        b_m, v, b_pm, p_v, FORMS.prior_logvar != ABSENT
    )
    grad_m = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    grad_v = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    grad_pm = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    grad_pv = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    if NOISE != NO_NOISE:
        place = offsets(at, at[0], cols, T)
        for sample in range(samples):
            there = plane(sample, rows, cols, T) + place
            b_gz = load_elements(p_grad_z, there, at[4], MASKED, T)
            eps = noise_of_tile(p_eps, there, key, first, sample, at, cols, NOISE, MASKED, T)
            grad_m += b_gz
            grad_v = add_slope(b_gz, eps, grad_v)
        grad_v = slope_grad_logvar(grad_v, deviation)
    if (UPSTREAM != ABSENT) or (DIMS != ABSENT):
        b_g = load_upstream(p_grad_kl, p_grad_dims, at, UPSTREAM, DIMS, MASKED, T)
        b_kl = kl_value(difference, scaled, ratio_minus)
        g, prior_g = kl_upstream(b_g, b_kl, control, T.COMPUTE)
        grad_m += kl_grad_mean(g, scaled)
        grad_pm -= kl_grad_mean(prior_g, scaled)
        grad_v += kl_grad_logvar(g, ratio)
        grad_pv += gate(b_pv, p_v, kl_grad_prior_logvar(prior_g, difference, scaled, ratio))
    return add_gradients(
        outputs, sums, grad_m, gate(b_v, v, grad_v), grad_pm, grad_pv, at, tile, rows, cols, GRADS,
        MASKED, T,
    )  # fmt: skip


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=["samples", "row_tiles"])
def sample_kl_bwd_kernel(
    p_grad_z,  # [L, N, D], unless NOISE is NO_NOISE
    p_grad_kl,  # [N], or one value for all rows, unless UPSTREAM is ABSENT
    p_grad_dims,  # [D], or one value for all columns, unless DIMS is ABSENT
    p_mean,  # [N, D]
    p_logvar, p_prior_mean, p_prior_logvar,  # in the form FORMS says
    p_eps,  # [L, N, D] where NOISE is GIVEN
    p_grad_mean, p_grad_logvar, p_grad_prior_mean, p_grad_prior_logvar,  # as GRADS says
    rows, cols, tiles, row_tiles, samples,
    mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride,
    floor, posterior_weight, prior_weight,  # of an element's KL and its gradients, or None each
    p_seed, key_low, key_high, first,
    FORMS: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, DIMS: tl.constexpr,
    NOISE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    group = (pid // tiles).to(tl.int64)
    strides = (mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride)
    control = (floor, posterior_weight, prior_weight)
    outputs = (p_grad_mean, p_grad_logvar, p_grad_prior_mean, p_grad_prior_logvar)
    key = load_key(p_seed, key_low, key_high)
    sums = new_sums(GRADS, T)
    for i in range(row_tiles):
        at = locate(group * row_tiles + i, tile, rows, cols, first, T)
        if is_whole(at, rows, cols, T):
            sums = sample_kl_bwd_tile(
                p_grad_z, p_grad_kl, p_grad_dims, p_mean, p_logvar, p_prior_mean, p_prior_logvar,
                p_eps, outputs, sums, strides, control, key, first, at, tile, rows, cols, samples,
                FORMS, GRADS, UPSTREAM, DIMS, NOISE, LOW, HIGH, False, T,
            )  # fmt: skip
        else:
            sums = sample_kl_bwd_tile(
                p_grad_z, p_grad_kl, p_grad_dims, p_mean, p_logvar, p_prior_mean, p_prior_logvar,
                p_eps, outputs, sums, strides, control, key, first, at, tile, rows, cols, samples,
                FORMS, GRADS, UPSTREAM, DIMS, NOISE, LOW, HIGH, True, T,
            )  # fmt: skip
    at = locate(group * row_tiles, tile, rows, cols, first, T)
    store_sums(outputs, sums, group, pid, at, cols, GRADS, T)


@replayed
def sample_kl_forward(
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor | None,  # shape of z
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    bounds: tuple[float, float],
    control: KLControl,
    return_dims: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """z [*batch, *event], behind num_samples where given; kl [*batch]; and its sum over the batch
    [*event], where asked for."""
    shape, split = mean.shape, mean.dim() - event_dims
    form = COLUMN_ if return_dims else ABSENT_
    call = Call((mean, logvar, prior_mean, prior_logvar), shape, event_dims, grads=(form,))
    count = (num_samples or 1) * mean.numel()
    noise = Noise(seed, row_offset * call.cols, mean.device, eps, count)
    tiling = call.divide(noise_first=noise.first, noise_samples=num_samples or 1)
    z = call.new(shape if num_samples is None else (num_samples, *shape), mean.dtype)
    kl = call.new(shape[:split])
    dims = call.new(shape[split:]) if return_dims else None
    floor, _, _ = control_arguments(control, call.compute)
    call.run(
        sample_kl_fwd_kernel, *call.tensors, noise.eps, z, call.summed(kl, call.tiles),
        None if dims is None else call.summed(dims, call.groups), call.rows, call.cols, call.tiles,
        call.row_tiles, num_samples or 1, *call.strides, floor, *noise.arguments,
        GaussianForms(*call.forms), form, noise.mode(tiling), *bounds, tiling,
    )  # fmt: skip
    return z, kl, dims


@replayed
def sample_kl_backward(
    grad_z: Tensor | None,  # shape of z
    grad_kl: Tensor | None,  # [*batch]
    grad_dims: Tensor | None,  # [*event]
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
    grads = GaussianForms(*gradient_forms(tensors, needs, mean.shape, event_dims))
    call = Call(tensors, mean.shape, event_dims, grads=grads)
    count = (num_samples or 1) * mean.numel()
    noise = Noise(seed, row_offset * call.cols, mean.device, eps, count)
    first = None if grad_z is None else noise.first
    tiling = call.divide(noise_first=first, noise_samples=num_samples or 1)
    made = [call.gradient(*each) for each in zip(tensors, grads, needs, strict=True)]
    grad_kl, form = upstream(grad_kl, call.rows)
    grad_dims, dims_form = upstream(grad_dims, call.cols)
    call.run(
        sample_kl_bwd_kernel, contiguous(grad_z, count), grad_kl, grad_dims,
        *call.tensors, noise.eps, *(place for _, place in made), call.rows, call.cols, call.tiles,
        call.row_tiles, num_samples or 1, *call.strides, *control_arguments(control, call.compute),
        *noise.arguments, GaussianForms(*call.forms), grads, form,
        COLUMN_ if dims_form == ROW_ else dims_form,
        NO_NOISE.value if grad_z is None else noise.mode(tiling), *bounds, tiling,
    )  # fmt: skip
    return tuple(gradient for gradient, _ in made)
