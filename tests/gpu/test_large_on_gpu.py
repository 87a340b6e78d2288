"""More elements than 32-bit indices count, and the same bits in a hundred runs."""

from __future__ import annotations

import pytest
import torch
from work import assert_identical, every_op, inputs

import vae_fast.functional as F

PAST_INT32 = 2**31 + 9
GIB = 1 << 30


def needs_memory(count: int) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < count * GIB:
        pytest.skip(f"{count} GiB of free GPU memory are needed, {free / GIB:.1f} are there")


def test_a_row_past_32_bit_indices(gpu_backend: str) -> None:
    ones = torch.ones((), device="cuda").expand(1, PAST_INT32)
    kl = F.gaussian_kl(ones, torch.zeros((), device="cuda"), backend=gpu_backend)
    torch.testing.assert_close(kl.cpu(), torch.tensor([PAST_INT32 / 2]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rows", [1, 2**15])
def test_elements_past_32_bit_indices(rows: int, gpu_backend: str) -> None:
    """In memory: the last elements are those of a small call with their offset."""
    needs_memory(24)
    cols = PAST_INT32 // rows + 1
    mean = torch.zeros(rows, cols, dtype=torch.bfloat16, device="cuda", requires_grad=True)
    logvar = torch.zeros((), device="cuda")
    z, kl = F.sample_kl(mean, logvar, seed=4, backend=gpu_backend)
    assert kl.isfinite().all()
    tail = F.noise((9,), seed=4, row_offset=rows * cols - 9, event_dims=0, dtype=torch.bfloat16,
                   device="cuda", backend=gpu_backend)  # fmt: skip
    assert torch.equal(z.detach().flatten()[-9:], tail)
    (gradient,) = torch.autograd.grad(z, mean, z.detach())
    assert torch.equal(gradient.flatten()[-9:], tail)


def test_a_hundred_runs_have_the_same_bits(gpu_backend: str) -> None:
    given = inputs(513, 33, 3001)
    seed = torch.ones((), dtype=torch.int64, device="cuda")
    first = every_op(given, gpu_backend, seed)
    for _ in range(99):
        assert_identical(first, every_op(given, gpu_backend, seed))
