"""Large results of the C++ kernels, written past the caches: the same bits as small ones."""

from __future__ import annotations

import pytest
import torch
from conftest import Backend
from torch import Tensor

import vae_fast.functional as F

# Rows of which two are more than csrc/cpu/stream.h writes through the caches, and one is not; the
# second and third begin their second row away from a multiple of a vector and of a line.
WIDTHS = (2**20 + 2**17, 2**20 + 2**17 + 16, 2**20 + 2**17 + 3)


def results(rows: slice, dtype: torch.dtype, cols: int) -> list[Tensor]:
    """Every large result that some rows of one problem have."""
    made = torch.Generator().manual_seed(1)
    x, mean, logvar, grad_z = (
        torch.randn(2, cols, generator=made).to(dtype)[rows] for _ in range(4)
    )
    kl, grad = (torch.rand(2, generator=made)[rows] for _ in range(2))
    leaves = [t.requires_grad_() for t in (x, mean, logvar)]
    kept: list[Tensor] = []
    z, kl_of_z = F.sample_kl(mean, logvar, seed=5, row_offset=rows.start, backend="cpu")
    kept += [z.detach(), *torch.autograd.grad((z, kl_of_z), (mean, logvar), (grad_z, grad))]
    ll = F.gaussian_log_likelihood(x, mean, logvar, backend="cpu")
    kept += torch.autograd.grad(ll, leaves, grad)
    loss = F.negative_elbo(x.detach(), mean, logvar, kl, reduction="sum", backend="cpu")
    kept += torch.autograd.grad(loss, (mean, logvar))
    kept.append(F.noise((len(kl), cols), seed=5, row_offset=rows.start, dtype=dtype, backend="cpu"))
    return kept


@pytest.mark.parametrize("cols", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_large_batch_is_its_rows(
    dtype: torch.dtype, cols: int, compiled_backend: Backend
) -> None:
    whole = results(slice(0, 2), dtype, cols)
    parts = [results(slice(row, row + 1), dtype, cols) for row in range(2)]
    for number, (large, *small) in enumerate(zip(whole, *parts, strict=True)):
        assert torch.equal(large, torch.cat(small)), number
