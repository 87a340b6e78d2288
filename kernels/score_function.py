"""``score_function``: its gradients. Forward it is the signal itself, and nothing is launched."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from vae_fast._backends import Needs
from vae_fast.kernels.gaussian import add_score, clamp, gate, score_grad_mean, unless_zero
from vae_fast.kernels.launch import ROW as ROW_
from vae_fast.kernels.launch import Call, gradient_forms, upstream
from vae_fast.kernels.noise import KEY_SIZES, Noise, load_key, noise_of_tile
from vae_fast.kernels.replay import replayed
from vae_fast.kernels.tile import (
    add_gradient,
    is_whole,
    load,
    load_sample_rows,
    locate,
    new_sum,
    offsets,
    plane,
    store_sum,
)


class ScoreForms(NamedTuple):
    """Over what the gradient of each argument is a sum."""

    mean: int
    logvar: int


@triton.jit
def score_function_bwd_tile(
    p_upstream, p_weight, p_logvar, p_eps, outputs, sums, logvar_stride, key, first, at, tile,
    rows, cols, samples,
    FORM: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, WEIGHT: tl.constexpr,
    NOISE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, MASKED: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    b_v = load(p_logvar, logvar_stride, at, 1, FORM, MASKED, T)
    v = clamp(b_v, LOW, HIGH)
    place = offsets(at, at[0], cols, T)
    grad_m = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    grad_v = tl.full([T.R, T.C], 0.0, T.COMPUTE)
    for sample in range(samples):
        there = plane(sample, rows, cols, T) + place
        eps = noise_of_tile(p_eps, there, key, first, sample, at, cols, NOISE, MASKED, T)
        g = load_sample_rows(p_upstream, sample, rows, at, UPSTREAM, T)
        c = g * unless_zero(g, load_sample_rows(p_weight, sample, rows, at, WEIGHT, T))
        grad_m, grad_v = add_score(c, eps, grad_m, grad_v)
    grad_m = score_grad_mean(grad_m, v)
    grad_v = gate(b_v, v, grad_v)
    return (
        add_gradient(outputs[0], sums[0], grad_m, at, tile, rows, cols, GRADS.mean, MASKED, T),
        add_gradient(outputs[1], sums[1], grad_v, at, tile, rows, cols, GRADS.logvar, MASKED, T),
    )


@triton.jit(
    do_not_specialize=("rows", "cols", "tiles", "logvar_stride", *KEY_SIZES),
    do_not_specialize_on_alignment=["samples", "row_tiles"],
)
def score_function_bwd_kernel(
    p_upstream, p_weight,  # [L, N], or one value for all
    p_logvar,  # in the form FORM says
    p_eps,  # [L, N, D] where NOISE is GIVEN
    p_grad_mean, p_grad_logvar,  # as GRADS says
    rows, cols, tiles, row_tiles, samples,
    logvar_stride,
    p_seed, key_low, key_high, first,
    FORM: tl.constexpr, GRADS: tl.constexpr, UPSTREAM: tl.constexpr, WEIGHT: tl.constexpr,
    NOISE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    rows, cols = rows.to(tl.int64), cols.to(tl.int64)
    tile = (pid % tiles).to(tl.int64)
    group = (pid // tiles).to(tl.int64)
    outputs = (p_grad_mean, p_grad_logvar)
    key = load_key(p_seed, key_low, key_high)
    sums = (new_sum(GRADS.mean, T), new_sum(GRADS.logvar, T))
    for i in range(row_tiles):
        at = locate(group * row_tiles + i, tile, rows, cols, first, T)
        if is_whole(at, rows, cols, T):
            sums = score_function_bwd_tile(
                p_upstream, p_weight, p_logvar, p_eps, outputs, sums, logvar_stride, key, first, at,
                tile, rows, cols, samples, FORM, GRADS, UPSTREAM, WEIGHT, NOISE, LOW, HIGH,
                False, T,
            )  # fmt: skip
        else:
            sums = score_function_bwd_tile(
                p_upstream, p_weight, p_logvar, p_eps, outputs, sums, logvar_stride, key, first, at,
                tile, rows, cols, samples, FORM, GRADS, UPSTREAM, WEIGHT, NOISE, LOW, HIGH,
                True, T,
            )  # fmt: skip
    at = locate(group * row_tiles, tile, rows, cols, first, T)
    store_sum(p_grad_logvar, sums[1], group, pid, at, cols, GRADS.logvar, T)


@replayed
def score_function_backward(
    gradient: Tensor,  # of the signal: [*batch], behind num_samples where given
    weight: Tensor,  # of the same shape
    mean: Tensor,  # [*batch, *event], of which shape and dtype matter
    logvar: Tensor,  # broadcastable to mean
    eps: Tensor | None,  # [*batch, *event], behind num_samples where given
    seed: int | Tensor | None,
    num_samples: int | None,
    event_dims: int,
    row_offset: int,
    bounds: tuple[float, float],
    needs: Needs,
) -> tuple[Tensor | None, ...]:
    grads = ScoreForms(*gradient_forms((mean, logvar), needs, mean.shape, event_dims))
    call = Call(
        (logvar,), mean.shape, event_dims, grads=grads, also=(mean,), whole=grads.logvar == ROW_
    )
    samples = num_samples or 1
    noise = Noise(seed, row_offset * call.cols, mean.device, eps, samples * mean.numel())
    tiling = call.divide(noise_first=noise.first, noise_samples=samples)
    made = [call.gradient(*each) for each in zip((mean, logvar), grads, needs, strict=True)]
    upstream_rows, form = upstream(gradient, samples * call.rows)
    weights, weight_form = upstream(weight, samples * call.rows)
    call.run(
        score_function_bwd_kernel, upstream_rows, weights, *call.tensors, noise.eps,
        *(place for _, place in made), call.rows, call.cols, call.tiles, call.row_tiles,
        num_samples or 1, *call.strides, *noise.arguments, *call.forms, grads, form,
        weight_form, noise.mode(tiling), *bounds, tiling,
    )  # fmt: skip
    return tuple(gradient for gradient, _ in made)
