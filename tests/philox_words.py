"""A kernel that stores the words of the Triton backend's Philox, so that they can be compared."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from vae_fast.kernels.random import philox


@triton.jit
def philox_words_kernel(p_blocks, sample, p_key, p_words, N: tl.constexpr):
    lane = tl.arange(0, N)[None, :]
    block = tl.load(p_blocks + lane).to(tl.uint64, bitcast=True)
    key = tl.load(p_key).to(tl.uint64, bitcast=True)
    words = philox(block, sample, key)
    for i in tl.static_range(4):
        tl.store(p_words + i * N + lane, words[i].to(tl.int64))


def words(blocks: np.ndarray, sample: int, seed: int) -> np.ndarray:
    """The four words [4, N] of each block (uint64), N a power of two."""
    given = torch.from_numpy(blocks.view(np.int64))
    key = torch.from_numpy(np.array([seed], dtype=np.uint64).view(np.int64))
    made = torch.empty(4, len(blocks), dtype=torch.int64)
    philox_words_kernel[(1,)](given, sample, key, made, len(blocks))
    return made.numpy().view(np.uint64)
