"""How far a result may lie from the float64 answer: one error model for all ops and dtypes.

A value is a sum of terms. With ``A`` the sum of the absolute values that one term is made from
(``magnitudes.py``), ``eps`` the machine epsilon of the arithmetic (float32; float64 for float64
inputs) and M the number of terms,

    TERM * eps * sqrt(sum A^2)                      each term is off by a few eps of its A
  + SUM * eps * sqrt(1 + log2 M) * sum A            a blocked sum in fixed order
  + NOISE * sqrt(sum S^2)                           S: what one unit of noise error would change
  + ROUNDINGS[op] * unit(dtype) * |value|           the result is stored in its own dtype
  + ORACLE * eps64 * sum A'                         so is the answer, whose A is that of autograd

bounds the error. Nothing here was fitted to a backend: TERM and SUM count operations, the rest is
the contract. A test that fails has found a bug or a term that ``magnitudes.py`` forgot.
"""

from __future__ import annotations

import math

import torch
from magnitudes import Terms
from torch import Tensor

TERM = 8  # exp and expm1 within 2 eps each, and at most four more roundings in a term
SUM = 2
ORACLE = 16
# Contract: noise within 4e-6 of its float64 value; float64 noise is made in float64.
NOISE = {torch.float32: 4e-6, torch.float64: 1e-13}
# Gradients of the loss are stored once in the forward pass and once more scaled by its gradient.
ROUNDINGS = {
    "sample_kl": 1,
    "gaussian_kl": 1,
    "gaussian_log_likelihood": 1,
    "negative_elbo": 2,
    "squared_error": 1,
    "sample_log_weights": 1,
    "importance_weighted_elbo": 1,
    "score_function": 1,
    "noise": 1,
}
# Against plain PyTorch in the same dtype (the contract's anchor).
PLAIN_FACTOR = 2
# A statistic of the noise fails when chance alone would exceed it with this probability.
P_VALUE = 1e-4
NORMAL_QUANTILE = 3.8906  # of |N(0, 1)| at P_VALUE
KOLMOGOROV_QUANTILE = math.sqrt(-0.5 * math.log(P_VALUE / 2))


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """The dtype that inputs of ``dtype`` are computed in."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def unit(dtype: torch.dtype) -> float:
    """Largest relative error of one rounding to ``dtype``."""
    return torch.finfo(dtype).eps / 2


def sum_to(tensor: Tensor, shape: torch.Size) -> Tensor:
    """``tensor`` summed over the dimensions that broadcast ``shape`` to its own shape."""
    return tensor if tensor.shape == shape else tensor.sum_to_size(shape)


def bound(
    op: str,
    want: Tensor,  # float64, the answer
    terms: Terms,  # A and S of every term; the dimensions they are summed over are 1 in `want`
    dtype: torch.dtype,  # of the stored result
    compute: torch.dtype,  # of the arithmetic
    *,
    by_autograd: bool = False,  # plain PyTorch is under test
) -> Tensor:  # float64, shape of `want`
    """The largest error that the model above allows each element of ``want``."""
    eps = torch.finfo(compute).eps
    answer = terms.magnitude if terms.by_autograd is None else terms.by_autograd
    magnitude = answer if by_autograd else terms.magnitude
    count = max(1, magnitude.numel() // max(1, want.numel()))
    total = sum_to(magnitude, want.shape)
    spread = sum_to(magnitude.square(), want.shape).sqrt()
    allowed = TERM * eps * spread + SUM * eps * math.sqrt(1 + math.log2(count)) * total
    if terms.noise_slope is not None:
        allowed = allowed + NOISE[compute] * sum_to(terms.noise_slope.square(), want.shape).sqrt()
    # Below the normal range an element is off by a multiple of the smallest subnormal instead.
    stored = unit(dtype) * want.abs() + torch.finfo(dtype).smallest_normal * unit(dtype)
    oracle = ORACLE * torch.finfo(torch.float64).eps * sum_to(answer, want.shape)
    underflow = count * torch.finfo(compute).smallest_normal
    return allowed + ROUNDINGS[op] * stored + oracle + underflow
