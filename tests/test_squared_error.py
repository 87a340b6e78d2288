"""What is particular to squared_error: its values, and the shared variance that it gives."""

from __future__ import annotations

import math

import pytest
import torch
from cases import HALVES
from conftest import Backend

import vae_fast.functional as F

LN_2PI = math.log(2 * math.pi)


def test_values_by_hand(backend: Backend) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.5]], device=backend.device)
    mean = torch.tensor([[1.0, 0.0, 6.0], [0.0, 0.0, 0.0]], device=backend.device)
    assert F.squared_error(x, mean, backend=backend.name).tolist() == [13.0, 0.25]
    rows = F.squared_error(x, mean, event_dims=0, backend=backend.name)
    assert torch.equal(rows, (x - mean) ** 2)


def test_a_leading_sample_axis(backend: Backend) -> None:
    """x is read once for each sample, and its gradient is the sum."""
    x = torch.randn(4, 3, 5, dtype=torch.float64, device=backend.device).requires_grad_()
    mean = torch.randn(2, 4, 3, 5, dtype=torch.float64, device=backend.device)
    together = F.squared_error(x, mean, backend=backend.name)
    assert together.shape == (2, 4)
    apart = torch.stack([F.squared_error(x, m, backend=backend.name) for m in mean])
    torch.testing.assert_close(together, apart, rtol=1e-14, atol=0)
    upstream = torch.randn(2, 4, dtype=torch.float64, device=backend.device)
    got, want = (torch.autograd.grad(s, x, upstream)[0] for s in (together, apart))
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


def test_its_mean_is_the_best_shared_variance(backend: Backend) -> None:
    """The likelihood's gradient vanishes there, and its value is -ND/2 (ln 2πσ² + 1)."""
    x, mean = (torch.randn(9, 5, dtype=torch.float64, device=backend.device) for _ in "ab")
    variance = F.squared_error(x, mean, backend=backend.name).sum() / x.numel()
    logvar = variance.log().requires_grad_()
    total = F.gaussian_log_likelihood(x, mean, logvar, backend=backend.name).sum()
    (gradient,) = torch.autograd.grad(total, logvar)
    assert abs(gradient.item()) < 1e-12
    want = -0.5 * x.numel() * (LN_2PI + variance.log().item() + 1)
    assert total.item() == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_sums_in_float32(dtype: torch.dtype, backend: Backend) -> None:
    """Ten thousand ones: a sum in float16 stops at 2048, in bfloat16 at 256."""
    x = torch.ones(1, 10_000, dtype=dtype, device=backend.device)
    s = F.squared_error(x, torch.zeros_like(x), backend=backend.name)
    assert s.dtype is torch.float32 and s.item() == 10_000


def test_no_error_has_no_gradient(backend: Backend) -> None:
    x = torch.randn(5, 7, device=backend.device).requires_grad_()
    mean = x.detach().clone().requires_grad_()
    s = F.squared_error(x, mean, backend=backend.name)
    assert torch.equal(s, torch.zeros_like(s))
    for gradient in torch.autograd.grad(s.sum(), (x, mean)):
        assert not gradient.any()
