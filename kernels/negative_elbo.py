"""``negative_elbo``: the loss, and in the same trip over memory the gradients of a scalar loss.

Those are made for an upstream gradient of 1, and scaled by ``scale_`` in the backward pass. The
form of two passes has ``gaussian_log_likelihood``'s backward pass.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from vae_fast._backends import Needs
from vae_fast.kernels.arguments import as_argument
from vae_fast.kernels.gaussian import gate, log_density_grad_logvar, log_density_grad_mean
from vae_fast.kernels.gaussian_log_likelihood import (
    SIZES,
    LikelihoodForms,
    gaussian_log_likelihood_backward,
    load_density,
    samples_of,
)
from vae_fast.kernels.launch import Call, contiguous, gradient_forms
from vae_fast.kernels.math import number
from vae_fast.kernels.replay import replayed
from vae_fast.kernels.tile import (
    add_gradient,
    is_whole,
    locate,
    new_sum,
    store_sum,
    sum_rows,
)


@triton.jit
def row_parts(at, tile, tiles, period, WRAP: tl.constexpr):
    """Where a row's part goes in [samples * tiles, rows of a sample]."""
    if WRAP:
        return (at[0] // period * tiles + tile) * period + at[0] % period
    else:
        return tile * period + at[0]


@triton.jit
def negative_elbo_fwd_tile(
    p_x, p_mean, p_logvar, p_kl, p_loss, p_ll, p_grad_kl, outputs, sums, strides, beta, samples,
    count, at, tile, tiles, rows, cols, period,
    FORMS: tl.constexpr, GRADS: tl.constexpr, SCALAR_LOSS: tl.constexpr, WRAP: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr, MASKED: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    scaled, square, value, b_v, v = load_density(
        p_x, p_mean, p_logvar, strides, at, period, FORMS, LOW, HIGH, MASKED, T
    )
    place = row_parts(at, tile, tiles, period, WRAP)
    ll = sum_rows(value, at) / samples
    tl.store(p_ll + place, ll, mask=at[1])
    # The KL term of a row counts once: in the first tile of the first sample.
    m_kl = at[1] & (at[0] < tl.where(tile == 0, period, 0))
    b_kl = tl.load(p_kl + at[0], mask=m_kl, other=0.0).to(T.COMPUTE)
    loss = tl.where(m_kl, beta * b_kl, 0.0) - ll
    total = sums[0]
    if SCALAR_LOSS:
        total += tl.where(at[1], loss, 0.0)
    else:
        tl.store(p_loss + place, loss, mask=at[1])
    if p_grad_kl is not None:
        tl.store(p_grad_kl + at[0], tl.full([T.R, 1], 0.0, T.COMPUTE) + beta / count, mask=m_kl)
    g = -1.0 / (count * samples)
    grad_m = log_density_grad_mean(g, scaled)
    grad_v = gate(b_v, v, log_density_grad_logvar(g, square))
    return (
        total,
        add_gradient(outputs[0], sums[1], grad_m, at, tile, rows, cols, GRADS.mean, MASKED, T),
        add_gradient(outputs[1], sums[2], grad_v, at, tile, rows, cols, GRADS.logvar, MASKED, T),
    )


@triton.jit(do_not_specialize=(*SIZES, "samples", "count", "beta"),
            do_not_specialize_on_alignment=["row_tiles"])  # fmt: skip
def negative_elbo_fwd_kernel(
    p_x, p_mean, p_logvar,  # [N, D], or in the form FORMS says
    p_kl,  # [B], B the rows of a sample
    p_beta, beta,  # 0-dim, or a number where there is no pointer
    p_loss,  # a value a program for SCALAR_LOSS, else [samples * tiles, B]
    p_ll,  # [samples * tiles, B]
    p_grad_mean, p_grad_logvar,  # as GRADS says
    p_grad_kl,  # [B], or None
    rows, cols, tiles, row_tiles, period, samples,
    count,  # of the rows that the loss is a mean over; 1 for a sum
    x_stride, mean_stride, logvar_stride,
    FORMS: tl.constexpr, GRADS: tl.constexpr, SCALAR_LOSS: tl.constexpr, WRAP: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    group = (pid // tiles).to(tl.int64)
    strides = (x_stride, mean_stride, logvar_stride)
    outputs = (p_grad_mean, p_grad_logvar)
    if p_beta is not None:
        b_beta = tl.load(p_beta).to(T.COMPUTE)
    else:
        b_beta = number(beta, T.COMPUTE)
    of_samples = samples.to(T.COMPUTE)
    of_rows = count.to(T.COMPUTE)
    sums = (tl.full([T.R, 1], 0.0, T.COMPUTE), new_sum(GRADS.mean, T), new_sum(GRADS.logvar, T))
    for i in range(row_tiles):
        at = locate(group * row_tiles + i, tile, rows, cols, 0, T)
        if is_whole(at, rows, cols, T):
            sums = negative_elbo_fwd_tile(
                p_x, p_mean, p_logvar, p_kl, p_loss, p_ll, p_grad_kl, outputs, sums, strides,
                b_beta, of_samples, of_rows, at, tile, tiles, rows, cols, period, FORMS, GRADS,
                SCALAR_LOSS, WRAP, LOW, HIGH, False, T,
            )  # fmt: skip
        else:
            sums = negative_elbo_fwd_tile(
                p_x, p_mean, p_logvar, p_kl, p_loss, p_ll, p_grad_kl, outputs, sums, strides,
                b_beta, of_samples, of_rows, at, tile, tiles, rows, cols, period, FORMS, GRADS,
                SCALAR_LOSS, WRAP, LOW, HIGH, True, T,
            )  # fmt: skip
    at = locate(group * row_tiles, tile, rows, cols, 0, T)
    store_sum(p_grad_logvar, sums[2], group, pid, at, cols, GRADS.logvar, T)
    if SCALAR_LOSS:
        tl.store(p_loss + pid, tl.sum(tl.sum(sums[0], axis=1), axis=0) / of_rows)


def _beta(beta: float | Tensor, call: Call) -> tuple[Tensor | None, float | int]:
    """A pointer to beta, or beta."""
    if isinstance(beta, Tensor) and beta.device == call.device:
        return beta.resolve_neg(), 0.0
    return None, as_argument(float(beta), call.compute)


@replayed
def negative_elbo_forward(
    x: Tensor,  # [*batch, *event]
    mean: Tensor,  # [*batch, *event], or with a leading sample axis
    logvar: Tensor | None,  # broadcastable to mean
    kl: Tensor,  # [*batch]
    beta: float | Tensor,
    reduction: str,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,  # of mean, logvar and kl
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """The loss, the log-likelihood of each row, and the gradients asked for."""
    samples = samples_of(x, mean)
    tensors = (x, mean, logvar)
    forms = gradient_forms((mean, logvar), needs[:2], mean.shape, event_dims)
    grads = LikelihoodForms(0, *forms)
    call = Call(tensors, mean.shape, event_dims, samples=samples, grads=grads, also=(kl,))
    tiling = call.divide()
    scalar = reduction != "none"
    loss = call.new(() if scalar else kl.shape)
    ll = call.new(kl.shape)
    parts = samples * call.tiles
    place_loss = call.summed(loss, call.programs if scalar else parts)
    place_ll = call.summed(ll, parts)
    made = [call.gradient(*each) for each in zip((mean, logvar), forms, needs[:2], strict=True)]
    count = kl.numel() if reduction == "mean" else 1
    grad_kl = call.new(kl.shape, kl.dtype) if needs[2] else None
    call.run(
        negative_elbo_fwd_kernel, *call.tensors, contiguous(kl, call.rows // max(samples, 1)),
        *_beta(beta, call), place_loss, place_ll, *(place for _, place in made), grad_kl,
        call.rows, call.cols, call.tiles, call.row_tiles, call.period, samples, count,
        *call.strides, LikelihoodForms(*call.forms), grads, scalar, samples > 1, *bounds, tiling,
    )  # fmt: skip
    return loss, ll, (*(gradient for gradient, _ in made), grad_kl)


def negative_elbo_backward(
    grad_loss: Tensor,  # 0-dim, or [*batch] for "none"
    x: Tensor,
    mean: Tensor,
    logvar: Tensor | None,
    reduction: str,
    event_dims: int,
    bounds: tuple[float, float],
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    """The two-pass form: the gradients by x, mean and logvar for what arrives from above."""
    rows = math.prod(x.shape[: x.dim() - event_dims]) if reduction == "mean" else 1
    divisor = -max(rows, 1) * samples_of(x, mean)
    return gaussian_log_likelihood_backward(
        grad_loss, x, mean, logvar, event_dims, bounds, needs, divisor
    )
