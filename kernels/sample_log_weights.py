"""``sample_log_weights``: samples and their log-ratios of prior to posterior, and their gradients.

Mean and log-variance are read once, however many samples there are; the noise is made again in the
backward pass.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from vae_fast._backends import Needs
from vae_fast.kernels.gaussian import (
    add_log_prior_grads,
    add_slope,
    clamp,
    deviation_of,
    gate,
    log_ratio,
    path_gradient,
    prior_distance,
    slope_grad_logvar,
    unless_zero,
)
from vae_fast.kernels.gaussian_kl import (
    SIZES,
    GaussianForms,
    add_gradients,
    load_gaussians,
    new_sums,
    store_sums,
)
from vae_fast.kernels.launch import Call, contiguous, gradient_forms, upstream
from vae_fast.kernels.math import exp
from vae_fast.kernels.noise import KEY_SIZES, Noise, load_key, noise_of_tile
from vae_fast.kernels.replay import replayed
from vae_fast.kernels.tile import (
    ABSENT,
    ROW,
    is_whole,
    load_elements,
    load_sample_rows,
    locate,
    offsets,
    plane,
    store_elements,
    sum_rows,
)

_SIZES = (*SIZES, *KEY_SIZES, "sample_offset")


@triton.jit
def clamp_prior(
    b_pv, LOW: tl.constexpr, HIGH: tl.constexpr, HAS_PRIOR_LOGVAR: tl.constexpr
):  # fmt: skip
    """p_v, and e^-p_v. Where no p_v is had, it is 0 whatever the bounds."""
    if HAS_PRIOR_LOGVAR:
        p_v = clamp(b_pv, LOW, HIGH)
        return p_v, exp(-p_v)
    else:
        return b_pv, b_pv + 1.0


@triton.jit
def sample_log_weights_fwd_tile(
    p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_eps, p_z, p_log_ratio, strides, key, first,
    sample_offset, at, tile, rows, cols, samples,
    FORMS: tl.constexpr, NOISE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
    MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    b_m, b_v, b_pm, b_pv = load_gaussians(
        p_mean, p_logvar, p_prior_mean, p_prior_logvar, strides, at, FORMS, MASKED, T
    )
    v = clamp(b_v, LOW, HIGH)
    p_v, precision = clamp_prior(b_pv, LOW, HIGH, FORMS.prior_logvar != ABSENT)
    deviation = deviation_of(v, FORMS.prior_logvar != ABSENT)
    place = offsets(at, at[0], cols, T)
    for sample in range(samples):
        there = plane(sample, rows, cols, T) + place
        eps = noise_of_tile(
            p_eps, there, key, first, sample_offset + sample, at, cols, NOISE, MASKED, T
        )
        z = tl.fma(deviation, eps, b_m)
        store_elements(p_z, there, z, at[4], MASKED)
        _, square = prior_distance(z, b_pm, precision)
        b_ratio = sum_rows(log_ratio(eps, v, p_v, square), at)
        tl.store(p_log_ratio + ((tile * samples + sample) * rows + at[0]), b_ratio, mask=at[1])


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=["samples"])
def sample_log_weights_fwd_kernel(
    p_mean,  # [N, D]
    p_logvar, p_prior_mean, p_prior_logvar,  # in the form FORMS says
    p_eps,  # [L, N, D] where NOISE is GIVEN
    p_z,  # [L, N, D]
    p_log_ratio,  # [tiles, L, N], float32 or float64
    rows, cols, tiles, samples,
    mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride,
    p_seed, key_low, key_high, first,
    sample_offset,  # of the first sample in the noise
    FORMS: tl.constexpr, NOISE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    at = locate((pid // tiles).to(tl.int64), tile, rows, cols, first, T)
    strides = (mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride)
    key = load_key(p_seed, key_low, key_high)
    offset = sample_offset.to(tl.int64)
    if is_whole(at, rows, cols, T):
        sample_log_weights_fwd_tile(
            p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_eps, p_z, p_log_ratio, strides, key,
            first, offset, at, tile, rows, cols, samples, FORMS, NOISE, LOW, HIGH, False, T,
        )  # fmt: skip
    else:
        sample_log_weights_fwd_tile(
            p_mean, p_logvar, p_prior_mean, p_prior_logvar, p_eps, p_z, p_log_ratio, strides, key,
            first, offset, at, tile, rows, cols, samples, FORMS, NOISE, LOW, HIGH, True, T,
        )  # fmt: skip


@triton.jit
def sample_log_weights_bwd_tile(
    p_grad_z, p_grad_log_ratio, p_path_weight, p_mean, p_logvar, p_prior_mean, p_prior_logvar,
    p_eps, outputs, sums, strides, key, first, sample_offset, at, tile, rows, cols, samples,
    FORMS: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, PATH_ONLY: tl.constexpr,
    NOISE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, MASKED: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    b_m, b_v, b_pm, b_pv = load_gaussians(
        p_mean, p_logvar, p_prior_mean, p_prior_logvar, strides, at, FORMS, MASKED, T
    )
    v = clamp(b_v, LOW, HIGH)
    p_v, precision = clamp_prior(b_pv, LOW, HIGH, FORMS.prior_logvar != ABSENT)
    deviation = deviation_of(v, FORMS.prior_logvar != ABSENT)
    inverse = exp(-0.5 * v)
    place = offsets(at, at[0], cols, T)
    grad_m = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    grad_v = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    grad_pm = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    grad_pv = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    g_sum = tl.full([T.R, 1], 0.0, T.COMPUTE)
    for sample in range(samples):
        there = plane(sample, rows, cols, T) + place
        eps = noise_of_tile(
            p_eps, there, key, first, sample_offset + sample, at, cols, NOISE, MASKED, T
        )
        h = tl.full([T.R, T.C], 0.0, T.COMPUTE)
        if p_grad_z is not None:
            h = load_elements(p_grad_z, there, at[4], MASKED, T)
        if UPSTREAM != ABSENT:
            g = load_sample_rows(p_grad_log_ratio, sample, rows, at, UPSTREAM, T)
            scaled, square = prior_distance(tl.fma(deviation, eps, b_m), b_pm, precision)
            h = path_gradient(h, g, eps, scaled, inverse, PATH_ONLY)
            grad_pm, grad_pv = add_log_prior_grads(g, scaled, square, grad_pm, grad_pv)
            g_sum += g
        if p_path_weight is not None:
            share = load_sample_rows(p_path_weight, sample, rows, at, ROW, T)
            h = share * unless_zero(share, h)
        grad_m += h
        grad_v = add_slope(h, eps, grad_v)
    grad_v = slope_grad_logvar(grad_v, deviation)
    if (UPSTREAM != ABSENT) and not PATH_ONLY:
        grad_v += 0.5 * g_sum
    return add_gradients(
        outputs, sums, grad_m, gate(b_v, v, grad_v), grad_pm, gate(b_pv, p_v, grad_pv), at, tile,
        rows, cols, GRADS, MASKED, T,
    )  # fmt: skip


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=["samples", "row_tiles"])
def sample_log_weights_bwd_kernel(
    p_grad_z,  # [L, N, D], or None
    p_grad_log_ratio,  # [L, N], or one value for all, unless UPSTREAM is ABSENT
    p_path_weight,  # [L, N], or None
    p_mean,  # [N, D]
    p_logvar, p_prior_mean, p_prior_logvar,  # in the form FORMS says
    p_eps,  # [L, N, D] where NOISE is GIVEN
    p_grad_mean, p_grad_logvar, p_grad_prior_mean, p_grad_prior_logvar,  # as GRADS says
    rows, cols, tiles, row_tiles, samples,
    mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride,
    p_seed, key_low, key_high, first,
    sample_offset,  # of the first sample in the noise
    FORMS: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, PATH_ONLY: tl.constexpr,
    NOISE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    group = (pid // tiles).to(tl.int64)
    strides = (mean_stride, logvar_stride, prior_mean_stride, prior_logvar_stride)
    outputs = (p_grad_mean, p_grad_logvar, p_grad_prior_mean, p_grad_prior_logvar)
    key = load_key(p_seed, key_low, key_high)
    offset = sample_offset.to(tl.int64)
    sums = new_sums(GRADS, T)
    for i in range(row_tiles):
        at = locate(group * row_tiles + i, tile, rows, cols, first, T)
        if is_whole(at, rows, cols, T):
            sums = sample_log_weights_bwd_tile(
                p_grad_z, p_grad_log_ratio, p_path_weight, p_mean, p_logvar, p_prior_mean,
                p_prior_logvar, p_eps, outputs, sums, strides, key, first, offset, at, tile, rows,
                cols, samples, FORMS, GRADS, UPSTREAM, PATH_ONLY, NOISE, LOW, HIGH, False, T,
            )  # fmt: skip
        else:
            sums = sample_log_weights_bwd_tile(
                p_grad_z, p_grad_log_ratio, p_path_weight, p_mean, p_logvar, p_prior_mean,
                p_prior_logvar, p_eps, outputs, sums, strides, key, first, offset, at, tile, rows,
                cols, samples, FORMS, GRADS, UPSTREAM, PATH_ONLY, NOISE, LOW, HIGH, True, T,
            )  # fmt: skip
    at = locate(group * row_tiles, tile, rows, cols, first, T)
    store_sums(outputs, sums, group, pid, at, cols, GRADS, T)


@replayed
def sample_log_weights_forward(
    mean: Tensor,  # [*batch, *event]
    logvar: Tensor,  # broadcastable to mean
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    eps: Tensor | None,  # shape of z
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    sample_offset: int,
    bounds: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """z [*batch, *event] and log p(z) - log q(z|x) [*batch], behind num_samples where given."""
    lead = () if num_samples is None else (num_samples,)
    call = Call((mean, logvar, prior_mean, prior_logvar), mean.shape, event_dims, whole=True)
    count = (num_samples or 1) * mean.numel()
    noise = Noise(seed, row_offset * call.cols, mean.device, eps, count)
    tiling = call.divide(noise_first=noise.first, noise_samples=num_samples or 1, kept=True)
    z = call.new((*lead, *mean.shape), mean.dtype)
    ratio = call.new((*lead, *mean.shape[: mean.dim() - event_dims]))
    call.run(
        sample_log_weights_fwd_kernel, *call.tensors, noise.eps, z, call.summed(ratio, call.tiles),
        call.rows, call.cols, call.tiles, num_samples or 1, *call.strides, *noise.arguments,
        sample_offset, GaussianForms(*call.forms), noise.mode(tiling), *bounds, tiling,
    )  # fmt: skip
    return z, ratio


@replayed
def sample_log_weights_backward(
    grad_z: Tensor | None,  # shape of z
    grad_log_ratio: Tensor | None,  # [*batch], behind num_samples where given
    path_weight: Tensor | None,  # of each sample's path, [L, *batch]; None: 1
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
    path_only: bool,  # the gradient of log q at z does not go to its mean and logvar but by z
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    tensors = (mean, logvar, prior_mean, prior_logvar)
    grads = GaussianForms(*gradient_forms(tensors, needs, mean.shape, event_dims))
    call = Call(tensors, mean.shape, event_dims, grads=grads)
    count = (num_samples or 1) * mean.numel()
    noise = Noise(seed, row_offset * call.cols, mean.device, eps, count)
    tiling = call.divide(noise_first=noise.first, noise_samples=num_samples or 1, kept=True)
    made = [call.gradient(*each) for each in zip(tensors, grads, needs, strict=True)]
    rows = (num_samples or 1) * call.rows
    grad_rows, form = upstream(grad_log_ratio, rows)
    call.run(
        sample_log_weights_bwd_kernel, contiguous(grad_z, count), grad_rows,
        contiguous(path_weight, rows), *call.tensors, noise.eps,
        *(place for _, place in made), call.rows, call.cols, call.tiles, call.row_tiles,
        num_samples or 1, *call.strides, *noise.arguments, sample_offset,
        GaussianForms(*call.forms), grads, form, path_only, noise.mode(tiling), *bounds, tiling,
    )  # fmt: skip
    return tuple(gradient for gradient, _ in made)
