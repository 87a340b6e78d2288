"""Noise: Philox4x32-10 (Salmon et al. 2011) and Box-Muller (1958), as the contract defines them.

The error of a float32 normal against exact arithmetic on the same uniforms: with r = -2 ln u off by
2e-7 relative, and ``tl.sqrt`` (``sqrt.approx`` on NVIDIA, 1.2e-7 relative at worst) the radius is
off by 2.2e-7 relative, 1.5e-6 at its largest, 6.76. The sine is off by 2e-7 absolute, 1.4e-6 times
the radius; the product rounds by 4e-7. The sum, 3.3e-6, is within the contract's 4e-6.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vae_fast.kernels.math import log, sincos_two_pi


@triton.jit
def philox(block, sample, key):
    """The four words of the block's counter (block, sample, 0), under the 64-bit key."""
    c0 = block.to(tl.uint32).to(tl.uint64)
    c1 = (block >> 32).to(tl.uint32)
    c2 = tl.full([1, 1], 0, tl.uint64) + sample
    c3 = tl.full([1, 1], 0, tl.uint32)
    key0 = key & 0xFFFFFFFF
    key1 = key >> 32
    for i in tl.static_range(10):
        # 64-bit products of 32-bit words: one multiplication gives both halves.
        product0 = c0 * 0xD2511F53
        product1 = c2 * 0xCD9E8D57
        round0 = (key0 + i * 0x9E3779B9).to(tl.uint32)
        round1 = (key1 + i * 0xBB67AE85).to(tl.uint32)
        c0 = ((product1 >> 32).to(tl.uint32) ^ c1 ^ round0).to(tl.uint64)
        c1 = product1.to(tl.uint32)
        c2 = ((product0 >> 32).to(tl.uint32) ^ c3 ^ round1).to(tl.uint64)
        c3 = product0.to(tl.uint32)
    return c0.to(tl.uint32), c1, c2.to(tl.uint32), c3


@triton.jit
def box_muller(word, next_word, COMPUTE: tl.constexpr):
    """Two words to two normals. The uniforms are float32, whatever is computed in."""
    u = (word.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10).to(COMPUTE)
    w = (next_word.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10).to(COMPUTE)
    radius = tl.sqrt(-2.0 * log(u))
    sine, cosine = sincos_two_pi(w)
    return radius * cosine, radius * sine


@triton.jit
def normals(element, sample, key, R: tl.constexpr, C: tl.constexpr, COMPUTE: tl.constexpr):
    """The noise [R, C] of rows of C elements, each beginning at ``element`` [R, 1], a multiple
    of 4 (uint64)."""
    block = (element >> 2) + tl.arange(0, C // 4)[None, :].to(tl.uint64)
    r0, r1, r2, r3 = philox(block, sample, key)
    even0, odd0 = box_muller(r0, r1, COMPUTE)
    even1, odd1 = box_muller(r2, r3, COMPUTE)
    # [R, C / 4, pair, parity]
    quads = tl.join(tl.join(even0, even1), tl.join(odd0, odd1))
    return tl.reshape(quads, [R, C])


@triton.jit
def normals_singly(element, sample, key, COMPUTE: tl.constexpr):
    """The noise of each element [R, C] (uint64), from a Philox block of its own."""
    r0, r1, r2, r3 = philox(element >> 2, sample, key)
    second = (element & 2) != 0
    even, odd = box_muller(tl.where(second, r2, r0), tl.where(second, r3, r1), COMPUTE)
    return tl.where((element & 1) == 0, even, odd)
