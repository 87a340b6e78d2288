"""Rows of whole packs at aligned addresses have kernels of their own, which give the same results.

The same bits where no compiler joins a multiplication and an addition behind the author's back: by
the CUDA kernels on a GPU, which nvcc compiles, the noise, and the rest within a rounding or two.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import Backend
from torch import Tensor

import vae_fast.functional as F

SHAPES = ((3, 40), (2, 2056))  # multiples of 8: a pack of bfloat16


def off_by_one(tensor: Tensor) -> Tensor:
    """The same values, one element past where memory is aligned."""
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)
    return room[1:].view(tensor.shape).copy_(tensor)


def with_gaps(tensor: Tensor) -> Tensor:
    """The same values, an element of something else behind each row."""
    room = torch.full((len(tensor), tensor.shape[1] + 1), torch.nan).to(tensor)
    return room[:, :-1].copy_(tensor)


def every_element(given: dict[str, Tensor], upstream: Tensor, backend: str) -> dict[str, Tensor]:
    """What has a value for each element, of which none is a sum."""
    leaves = {name: t.detach().requires_grad_() for name, t in given.items()}
    mean, logvar, x = leaves["mean"], leaves["logvar"], leaves["x"]
    rows = torch.linspace(-1, 1, mean.shape[0], device=mean.device)
    z, kl = F.sample_kl(mean, logvar, seed=7, backend=backend)
    log_likelihood = F.gaussian_log_likelihood(x, mean, logvar, backend=backend)
    loss = F.negative_elbo(x.detach(), mean, logvar, rows, backend=backend)
    made = {"z": z.detach()}
    for name, output, by, of in (
        ("sample_kl", (z, kl), (upstream, rows), (mean, logvar)),
        ("gaussian_kl", (F.gaussian_kl(mean, logvar, backend=backend),), (rows,), (mean, logvar)),
        ("log_likelihood", (log_likelihood,), (rows,), (x, mean, logvar)),
        ("negative_elbo", (loss,), (None,), (mean, logvar)),
    ):
        for number, gradient in enumerate(torch.autograd.grad(output, of, by)):
            made[f"{name} {number}"] = gradient
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("moved", ["mean", "logvar", "x", "upstream", "all"])
@pytest.mark.parametrize("move", [off_by_one, with_gaps])
def test_where_rows_begin_does_not_matter(
    move: Callable[[Tensor], Tensor],
    moved: str,
    shape: tuple[int, int],
    dtype: torch.dtype,
    backend: Backend,
) -> None:
    names = ("mean", "logvar", "x", "upstream")
    aligned = {name: torch.randn(shape).to(backend.device, dtype) for name in names}
    other = {name: move(t) if moved in (name, "all") else t.clone() for name, t in aligned.items()}
    assert backend.name is not None
    want, got = (
        every_element({n: given[n] for n in names[:3]}, given["upstream"], backend.name)
        for given in (aligned, other)
    )
    for name, tensor in want.items():
        if backend.name == "cuda" and name != "z":
            largest = tensor.abs().max().item()
            rounding = 4 * torch.finfo(torch.float32).eps * largest
            torch.testing.assert_close(
                got[name], tensor, rtol=torch.finfo(dtype).eps, atol=rounding
            )
        else:
            assert torch.equal(got[name], tensor), name
