"""Elementary functions of blocks of float32, and of float64 through Triton's own.

On a GPU Triton's float32 ``exp`` and ``log`` become the hardware's approximations (``ex2.approx``
and, by way of it, an error that grows with the argument). These polynomials on reduced ranges do
not, need no library, and run alike on every device and in the interpreter. The coefficients are
minimax fits.
"""

from __future__ import annotations

import triton
import triton.language as tl

_SHIFT = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer
_SHIFT_BITS = tl.constexpr(0x4B400000)


@triton.jit
def number(x, COMPUTE: tl.constexpr):
    """An argument made by ``launch.as_argument``: of float64 the bits."""
    if COMPUTE == tl.float64:
        return x.to(tl.int64).to(tl.float64, bitcast=True)
    else:
        return x


@triton.jit
def power_of_two(k):
    """2^k of int32 k in [-126, 127], from the exponent's bits."""
    return ((k + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def reduce_exponent(x):
    """x = k ln 2 + r with |r| <= ln 2 / 2: k as int32, and r."""
    shifted = tl.fma(x, 1.44269504, _SHIFT)
    k = shifted - _SHIFT
    # ln 2 in two parts, the first with so few bits that k times it is exact.
    r = tl.fma(k, 2.12194440e-4, tl.fma(k, -0.693359375, x))
    return shifted.to(tl.int32, bitcast=True) - _SHIFT_BITS, r


@triton.jit
def exp_tail(r):
    """e^r - 1 - r for |r| <= ln 2 / 2; relative error 2e-8 before rounding."""
    q = tl.fma(r, 1.992035878e-4, 1.394612254e-3)
    q = tl.fma(q, r, 8.333260529e-3)
    q = tl.fma(q, r, 4.166626919e-2)
    q = tl.fma(q, r, 1.666666688e-1)
    q = tl.fma(q, r, 0.5)
    return r * r * q


@triton.jit
def limit(x, LOW: tl.constexpr, HIGH: tl.constexpr):
    """x within [LOW, HIGH]; a NaN passes."""
    return tl.where(x < LOW, tl.full([1, 1], LOW, x.dtype),
                    tl.where(x > HIGH, tl.full([1, 1], HIGH, x.dtype), x))  # fmt: skip


@triton.jit
def exp(x):
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        # Beyond these limits the result is 0 or infinity.
        k, r = reduce_exponent(limit(x, -104.0, 88.8))
        value = tl.fma(r, 1.395054035e-3, 8.368917844e-3)
        value = tl.fma(value, r, 4.166620507e-2)
        value = tl.fma(value, r, 1.666651860e-1)
        value = tl.fma(value, r, 5.000000095e-1)
        value = tl.fma(value, r, 1.0)
        value = tl.fma(value, r, 1.0)
        half = k >> 1  # in two factors, so that neither leaves the exponent's range
        return value * power_of_two(half) * power_of_two(k - half)


@triton.jit
def expm1_float64(x):
    """e^x - 1 by Kahan's quotient, which cancels the rounding of e^x."""
    e = tl.exp(x)
    difference = e - 1.0
    exact = difference * x / tl.log(e)
    return tl.where(e == 1.0, x, tl.where((difference == -1.0) | (x > 709.0), difference, exact))


@triton.jit
def expm1(v):
    """e^v - 1, and e^v - 1 - v (of float32 without cancellation)."""
    if v.dtype == tl.float64:
        value = expm1_float64(v)
        return value, value - v
    else:
        k, r = reduce_exponent(limit(v, -86.0, 88.8))
        tail = exp_tail(r)
        half_scale = power_of_two(k - 1)  # half: 2^128 is no float
        half = tl.fma(half_scale, r + tail, half_scale - 0.5)
        value = half + half
        return value, tl.where(k == 0, tail, value - v)


@triton.jit
def exp_half(v):
    """e^(v/2), e^v - 1, and e^v - 1 - v: one polynomial for all three of float32."""
    if v.dtype == tl.float64:
        value = expm1_float64(v)
        return tl.exp(0.5 * v), value, value - v
    else:
        k, r = reduce_exponent(limit(0.5 * v, -86.0, 88.8))
        tail = exp_tail(r)
        p = r + tail
        half_scale = power_of_two(k - 1)
        half_root = tl.fma(half_scale, p, half_scale)
        # e^v - 1 = 4^k p (p + 2) + 4^k - 1, where (1 + p)^2 = e^(2r).
        half_square = (half_scale + half_scale) * half_scale
        half = tl.fma(half_square, p * (p + 2.0), half_square - 0.5)
        value = tl.where(v > 88.8, float("inf"), half + half)
        # For k = 0, v = 2r and e^(2r) - 1 - 2r = r^2 + tail (2 + 2r + tail), all terms positive.
        small = tl.fma(tail, tl.fma(r, 2.0, 2.0) + tail, r * r)
        return half_root + half_root, value, tl.where(k == 0, small, value - v)


@triton.jit
def log(u):
    """ln u of a normal number above 0; relative error below 2e-7, also where u is close to 1."""
    if u.dtype == tl.float64:
        return tl.log(u)
    else:
        # u = m 2^k with m in [sqrt(1/2), sqrt(2)), from the bits.
        bits = u.to(tl.int32, bitcast=True)
        exponent = (bits - 0x3F3504F3) & -0x800000
        k = (exponent >> 23).to(tl.float32)
        f = (bits - exponent).to(tl.float32, bitcast=True) - 1.0
        p = tl.fma(f, 8.700437761e-2, -1.426748615e-1)
        p = tl.fma(p, f, 1.491476694e-1)
        p = tl.fma(p, f, -1.657758474e-1)
        p = tl.fma(p, f, 1.996306389e-1)
        p = tl.fma(p, f, -2.500133704e-1)
        p = tl.fma(p, f, 3.333391074e-1)
        log1p = tl.fma(f * f, tl.fma(f, p, -0.5), f)
        return tl.fma(k, 0.693147181, log1p)


@triton.jit
def sincos_two_pi(w):
    """sin and cos of 2 pi w for w in (0, 1]; absolute error below 2e-7 (float32), 4e-16."""
    if w.dtype == tl.float64:
        # w = k / 4 + b, exactly, with |b| <= 1/8: a series each, whose first term left out is below
        # 1e-16. Triton's own sine would be a call, for arguments of any size.
        k = tl.floor(tl.fma(w, 4.0, 0.5))
        a = 6.283185307179586476925 * tl.fma(k, -0.25, w)
        y = a * a
        # Products and sums, since tl.fma takes a number as float32.
        s = y * (1.0 / 355687428096000.0) - 1.0 / 1307674368000.0
        s = s * y + 1.0 / 6227020800.0
        s = s * y - 1.0 / 39916800.0
        s = s * y + 1.0 / 362880.0
        s = s * y - 1.0 / 5040.0
        s = s * y + 1.0 / 120.0
        s = s * y - 1.0 / 6.0
        sine = tl.fma(a * y, s, a)
        c = y * (1.0 / 20922789888000.0) - 1.0 / 87178291200.0
        c = c * y + 1.0 / 479001600.0
        c = c * y - 1.0 / 3628800.0
        c = c * y + 1.0 / 40320.0
        c = c * y - 1.0 / 720.0
        c = c * y + 1.0 / 24.0
        c = c * y - 0.5
        cosine = c * y + 1.0
        quarter = k.to(tl.int32) & 3
        swapped = (quarter & 1) != 0
        sine, cosine = tl.where(swapped, cosine, sine), tl.where(swapped, sine, cosine)
        return (
            tl.where(quarter >= 2, -sine, sine),
            tl.where((quarter == 1) | (quarter == 2), -cosine, cosine),
        )
    else:
        # With b the signed distance to the nearest of 1/4 and 3/4: cos 2 pi w = -sin 2 pi b, and
        # sin 2 pi w = cos 2 pi b, negative in the second half.
        b = tl.minimum(w - 0.25, 0.75 - w)
        y = b * b
        s = tl.fma(y, -39.53670721, 76.54978244)
        s = tl.fma(s, y, -81.60100408)
        s = tl.fma(s, y, 41.34165503)
        s = tl.fma(s, y, -6.283185160)
        c = tl.fma(y, -24.76338313, 60.11182014)
        c = tl.fma(c, y, -85.45194685)
        c = tl.fma(c, y, 64.93931437)
        c = tl.fma(c, y, -19.73920835)
        c = tl.fma(c, y, 1.0)
        return tl.where(w > 0.5, -c, c), b * s
