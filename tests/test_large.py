"""More elements than 32-bit indices count. The inputs are expanded views: little is held."""

from __future__ import annotations

import pytest
import torch
from conftest import Backend

import vae_fast.functional as F

PAST_INT32 = 2**31 + 9


@pytest.mark.slow
def test_a_row_past_32_bit_indices(compiled_backend: Backend) -> None:
    ones = torch.ones(()).expand(1, PAST_INT32)
    kl = F.gaussian_kl(ones, torch.zeros(()), backend=compiled_backend.name)
    torch.testing.assert_close(kl, torch.tensor([PAST_INT32 / 2]), rtol=1e-6, atol=0)


@pytest.mark.slow
def test_noise_past_32_bit_indices(compiled_backend: Backend) -> None:
    zeros = torch.zeros((), dtype=torch.bfloat16).expand(1, PAST_INT32)
    z, _ = F.sample_kl(zeros, zeros, seed=4, backend=compiled_backend.name)
    tail = F.noise((9,), seed=4, row_offset=2**31, dtype=torch.bfloat16)
    assert torch.equal(z[0, 2**31 :], tail)
