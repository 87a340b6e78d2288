"""``importance_weighted_elbo``: the bound and the normalised weights, in one launch.

A program has all samples of some rows and walks over them three times: for the largest log-weight,
for the sum of the differences' exponentials, and for the weights. After the first walk they are in
the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vae_fast._backends.reference import compute_dtype
from vae_fast.kernels.launch import WEIGHT_ROWS, WEIGHT_TILE, launch, power_of_two
from vae_fast.kernels.math import exp, log
from vae_fast.kernels.replay import current, new, replayed


@triton.jit
def load_log_weights(
    p, begin, row, samples, rows, sample_stride, row_stride, K: tl.constexpr, COMPUTE: tl.constexpr
):
    """The log-weights [K, C] of the samples from ``begin`` on; their mask, and the samples."""
    sample = begin + tl.arange(0, K)[:, None].to(tl.int64)
    m = (sample < samples) & (row < rows)
    place = sample * sample_stride + row * row_stride
    return tl.load(p + place, mask=m, other=float("-inf")).to(COMPUTE), m, sample


@triton.jit
def relative_weight(b, b_max):
    """e^(b - max): 1 at the largest, also where that is infinite."""
    return tl.where(b == b_max, 1.0, exp(b - b_max))


@triton.jit(do_not_specialize=("samples", "rows", "sample_stride"),
            do_not_specialize_on_alignment=["row_stride"])  # fmt: skip
def importance_weighted_elbo_fwd_kernel(
    p_log_weights,  # [samples, N]
    p_bound,  # [N], float32 or float64
    p_weights,  # [samples, N]
    samples, rows, sample_stride, row_stride,
    K: tl.constexpr, C: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    rows = rows.to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * C + tl.arange(0, C)[None, :]
    b_max = tl.full([K, C], float("-inf"), COMPUTE)
    for begin in range(0, samples, K):
        b, _, _ = load_log_weights(
            p_log_weights, begin, row, samples, rows, sample_stride, row_stride, K, COMPUTE
        )
        b_max = tl.where(b > b_max, b, b_max)  # a NaN is left to the sum
    largest = tl.max(b_max, axis=0)[None, :]
    b_sum = tl.full([K, C], 0.0, COMPUTE)
    for begin in range(0, samples, K):
        b, m, _ = load_log_weights(
            p_log_weights, begin, row, samples, rows, sample_stride, row_stride, K, COMPUTE
        )
        b_sum += tl.where(m, relative_weight(b, largest), 0.0)
    total = tl.sum(b_sum, axis=0)[None, :]
    mean = total / samples.to(COMPUTE)
    bound = largest + tl.where(mean == mean, log(mean), mean)
    tl.store(p_bound + row, bound, mask=row < rows)
    # Where the largest is -inf every weight is 0, and where it is inf none is a number.
    total = tl.where(largest == float("-inf"), total * float("inf"), total)
    total = tl.where(largest == float("inf"), float("nan"), total)
    for begin in range(0, samples, K):
        b, m, sample = load_log_weights(
            p_log_weights, begin, row, samples, rows, sample_stride, row_stride, K, COMPUTE
        )
        tl.store(p_weights + (sample * rows + row), relative_weight(b, largest) / total, mask=m)


@replayed
def importance_weighted_elbo_forward(
    log_weights: Tensor,  # [K, *batch], K >= 1
) -> tuple[Tensor, Tensor]:
    """The bound [*batch], and the normalised weights [K, *batch]."""
    compute = compute_dtype(log_weights)
    samples, *batch = log_weights.shape
    values = log_weights.resolve_neg()
    values = values.reshape(samples, -1) if values.numel() else values.new_empty(samples, 0)
    rows = values.shape[1]
    bound = new(batch, compute, values.device)
    weights = new(log_weights.shape, compute, values.device)
    width = min(WEIGHT_ROWS, power_of_two(rows))
    height = min(WEIGHT_TILE // width, power_of_two(samples))
    with current(values.device):
        launch(
            importance_weighted_elbo_fwd_kernel, max(1, -(-rows // width)), values, bound, weights,
            samples, rows, *values.stride(), height, width,
            tl.float64 if compute is torch.float64 else tl.float32,
        )  # fmt: skip
    return bound, weights
