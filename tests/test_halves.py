"""Gradients written as the halves of one tensor: for whom, and with which bits."""

from __future__ import annotations

import pytest
import torch
from conftest import Backend
from packed_cases import are_halves
from torch import Tensor

import vae_fast.functional as F
from vae_fast.autograd import halves


@pytest.fixture(autouse=True)
def however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "SMALLEST", 0)


def test_which_tensors_are_halves() -> None:
    def made(mean: Tensor, logvar: Tensor, event_dims: int = 1) -> bool:
        needs = halves.with_halves((True, True, False), mean, logvar, event_dims)
        assert needs[2] is False
        return isinstance(needs[0], Tensor) and are_halves(needs[0], needs[1])

    mean, logvar = torch.randn(6, 10).chunk(2, 1)
    assert made(mean, logvar)
    assert halves.with_halves((True, False), mean, logvar, 1) == (True, False)
    assert not made(logvar, mean)
    assert not made(mean, torch.randn(6, 10).chunk(2, 1)[1])
    assert not made(mean, logvar.contiguous()) and not made(mean, logvar[:1])
    assert not made(mean, logvar.view(torch.int32))
    mean, logvar = torch.randn(6, 11)[:, :10].chunk(2, 1)  # rows of a wider tensor
    assert not made(mean, logvar)
    mean, logvar = torch.randn(12, 10)[::2].chunk(2, 1)
    assert not made(mean, logvar)
    mean, logvar = torch.randn(10, 6).t().chunk(2, 1)
    assert not made(mean, logvar)
    mean, logvar = torch.randn(4, 10, 3).chunk(2, 1)
    assert made(mean, logvar, 2) and not made(mean, logvar, 1)
    mean, logvar = (half.unflatten(0, (2, 3)) for half in torch.randn(6, 10).chunk(2, 1))
    assert made(mean, logvar) and not made(mean.transpose(0, 1), logvar.transpose(0, 1))


def test_what_is_the_half_of_a_whole() -> None:
    whole = torch.randn(6, 10)
    mean, logvar = whole.chunk(2, 1)

    def found(mean: Tensor | None, logvar: Tensor | None) -> Tensor | None:
        return halves.whole_of(mean, logvar, 1, whole.shape, whole.stride())

    assert found(mean, logvar).is_set_to(whole)
    assert found(logvar, mean) is None and found(mean, mean) is None
    assert found(mean, None) is None and found(None, logvar) is None
    other = torch.randn(6, 10).chunk(2, 1)[1]
    assert found(mean, other) is None and found(mean, logvar.contiguous()) is None
    assert found(mean, torch._neg_view(logvar)) is None
    assert found(mean, logvar.view(torch.int32)) is None


@pytest.mark.parametrize("cols", [100, 128, 131, 600, 1040])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_past_the_caches_of_a_cpu(dtype: torch.dtype, cols: int, compiled_backend: Backend) -> None:
    """Large gradients have the bits that contiguous ones have, whole rows a line or not."""
    rows = 2**21 // cols + 3
    parameters = torch.randn(rows, 2 * cols).to(dtype).requires_grad_()
    x = torch.randn(rows, cols, dtype=dtype)

    def both(mean: Tensor, logvar: Tensor) -> list[Tensor]:
        loss = F.negative_elbo(x, mean, logvar, torch.zeros(rows), backend="cpu")
        sample = F.sample_kl(mean, logvar, seed=7, backend="cpu")[0].square().sum()
        return [torch.autograd.grad(of, (mean, logvar)) for of in (loss, sample)]

    apart = [half.detach().contiguous().requires_grad_() for half in parameters.chunk(2, 1)]
    for made, want in zip(both(*F.split_parameters(parameters)), both(*apart), strict=True):
        assert are_halves(*made) and not are_halves(*want)
        assert all(map(torch.equal, made, want))
