"""What is particular to negative_elbo: reductions, and gradients that the forward pass made.

The forward pass keeps gradients for an upstream gradient of 1. These tests go through everything
that may happen between then and when they are handed over, or after.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import check
import pytest
import torch
from cases import ARGUMENTS, FLOATS, HALVES, Case, tensors
from conftest import Backend
from tolerances import bound
from torch import Tensor

import vae_fast.functional as F

EVERY = ARGUMENTS["negative_elbo"]
# With x the op takes two passes; without it, one: both must be right.
SUBSETS = (EVERY, ("mean", "logvar", "kl"), ("mean",), ("logvar",), ("kl",))
Arguments = dict[str, Tensor | None]


def assert_right(case: Case, gradients: dict[str, Tensor], factor: float | Tensor) -> None:
    """``gradients`` are those of the loss, times ``factor``, within the error model."""
    upstream = {"loss": torch.as_tensor(factor, dtype=torch.float64)}
    want, arguments = check.oracle_run(case, upstream)
    parts = check.terms(case, arguments, upstream)
    compute = torch.float64 if case.dtype is torch.float64 else torch.float32
    for name, gradient in gradients.items():
        goal = want.gradients[name]
        allowed = bound(case.op, goal, parts[name], gradient.dtype, compute)
        check.assert_close(f"grad {name}", gradient, goal, allowed)


def loss_of(case: Case, backend: Backend) -> tuple[Tensor, Arguments]:
    arguments = tensors(case, backend.device)
    return check.call(case, arguments, backend.name)["loss"], arguments


def leaves_of(case: Case, arguments: Arguments) -> dict[str, Tensor]:
    return {name: arguments[name] for name in case.differentiate or EVERY}


@pytest.fixture(params=SUBSETS, ids="+".join)
def subset(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


@pytest.fixture(params=FLOATS, ids=str)
def case(request: pytest.FixtureRequest, subset: tuple[str, ...]) -> Case:
    return Case("negative_elbo", (7, 33), dtype=request.param, differentiate=subset, beta=0.7)


def test_two_backward_calls_on_a_retained_graph(case: Case, backend: Backend) -> None:
    loss, arguments = loss_of(case, backend)
    leaves = leaves_of(case, arguments)
    for factor in (1.0, 1.0, -3.0, 1.0):
        upstream = torch.full_like(loss, factor)
        made = torch.autograd.grad(loss, list(leaves.values()), upstream, retain_graph=True)
        assert_right(case, dict(zip(leaves, made, strict=True)), factor)


def test_gradients_accumulate(case: Case, backend: Backend) -> None:
    """The first gradient becomes .grad, which the next is added to in place."""
    loss, arguments = loss_of(case, backend)
    leaves = leaves_of(case, arguments)
    loss.backward(retain_graph=True)
    first = {name: leaf.grad.clone() for name, leaf in leaves.items()}
    loss.backward(torch.full_like(loss, 2.0), retain_graph=True)
    fresh = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    assert_right(case, first, 1.0)
    assert_right(case, fresh, 1.0)
    for name, leaf in leaves.items():
        unit = torch.finfo(leaf.dtype).eps
        torch.testing.assert_close(leaf.grad, 3 * first[name], rtol=4 * unit, atol=unit)


def test_gradients_of_several_losses_accumulate(backend: Backend) -> None:
    """Micro-batches that share a decoder's shared log-variance."""
    case = Case("negative_elbo", (7, 33), dtype=torch.float64, logvar="scalar")
    loss, arguments = loss_of(case, backend)
    for micro_batch in range(3):
        check.call(case, arguments, backend.name)["loss"].backward(
            torch.full_like(loss, 2.0**micro_batch)
        )
    assert_right(case, {name: leaf.grad for name, leaf in leaves_of(case, arguments).items()}, 7.0)


def test_hooks_that_change_gradients_in_place(case: Case, backend: Backend) -> None:
    arguments = tensors(case, backend.device)
    inner = {n: None if t is None else t * 1 for n, t in arguments.items()}
    for name in case.differentiate:
        inner[name].register_hook(lambda gradient: gradient.mul_(2))
    loss = check.call(case, inner, backend.name)["loss"]
    leaves = leaves_of(case, arguments)
    for _ in range(3):
        made = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
        assert_right(case, dict(zip(leaves, made, strict=True)), 2.0)


def test_one_argument_at_a_time(case: Case, backend: Backend) -> None:
    loss, arguments = loss_of(case, backend)
    for name, leaf in leaves_of(case, arguments).items():
        (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        assert_right(case, {name: gradient}, 1.0)


@pytest.mark.parametrize("factor", [0.0, 2.0**16, -(2.0**-12), 1.0, math.inf])
def test_loss_scaling(factor: float, case: Case, backend: Backend) -> None:
    loss, arguments = loss_of(case, backend)
    leaves = leaves_of(case, arguments)
    made = torch.autograd.grad(loss * factor, list(leaves.values()))
    made = dict(zip(leaves, made, strict=True))
    if math.isfinite(factor):
        assert_right(case, made, factor)
        return
    # What a scaler looks for before it steps: every element that the loss depends on.
    for name, gradient in made.items():
        assert not bool(gradient.isfinite().any()), name


@pytest.mark.parametrize("logvar", ["full", "scalar", None])
def test_float16_gradients_do_not_underflow_before_they_are_scaled(
    logvar: str | None, backend: Backend
) -> None:
    """A mean over 8,192 rows: the gradients are near 1e-5, and float16 is coarse below 6e-5."""
    case = Case(
        "negative_elbo", (8192, 5), dtype=torch.float16, logvar=logvar,
        differentiate=("mean", "logvar", "kl") if logvar else ("mean", "kl"),
    )  # fmt: skip
    loss, arguments = loss_of(case, backend)
    leaves = leaves_of(case, arguments)
    made = torch.autograd.grad(loss * 2.0**13, list(leaves.values()))
    assert_right(case, dict(zip(leaves, made, strict=True)), 2.0**13)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("num_samples", [None, 3])
def test_is_beta_kl_minus_log_likelihood(
    num_samples: int | None, dtype: torch.dtype, reduction: str, backend: Backend
) -> None:
    case = Case("negative_elbo", (6, 11), dtype=dtype, num_samples=num_samples)
    a = tensors(case, backend.device)
    log_likelihood = F.gaussian_log_likelihood(a["x"], a["mean"], a["logvar"], backend=backend.name)
    if num_samples:
        log_likelihood = log_likelihood.mean(0)
    rows = 2.5 * a["kl"] - log_likelihood
    want = {"mean": rows.mean(), "sum": rows.sum(), "none": rows}[reduction]
    got = F.negative_elbo(**a, beta=2.5, reduction=reduction, backend=backend.name)
    assert got.shape == want.shape and got.dtype is log_likelihood.dtype
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)


def test_default_reduction_and_beta(backend: Backend) -> None:
    a = tensors(Case("negative_elbo", (6, 11)), backend.device)
    explicit = F.negative_elbo(**a, beta=1.0, reduction="mean", backend=backend.name)
    assert torch.equal(F.negative_elbo(**a, backend=backend.name), explicit)


def test_the_elbo_of_a_known_model(backend: Backend) -> None:
    """z ~ N(0,1), x|z ~ N(z,1), x = 1, q = N(0,1): -1.9189385. Noise of ±1 has q's moments."""
    zeros = torch.zeros(1, 1, dtype=torch.float64, device=backend.device)
    eps = torch.tensor([[[1.0]], [[-1.0]]], dtype=torch.float64, device=backend.device)
    z, kl = F.sample_kl(zeros, zeros, num_samples=2, eps=eps, backend=backend.name)
    loss = F.negative_elbo(torch.ones_like(zeros), z, None, kl, backend=backend.name)
    assert loss.item() == pytest.approx(1.9189385, abs=5e-8)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_beta_may_be_a_tensor_and_change_after_the_forward_pass(
    dtype: torch.dtype, backend: Backend, way: AbstractContextManager[Any]
) -> None:
    case = Case("negative_elbo", (7, 33), dtype=dtype, beta=0.25)
    arguments = tensors(case, backend.device)
    beta = torch.tensor(0.25, device=backend.device)
    with way:
        loss = F.negative_elbo(**arguments, beta=beta, backend=backend.name)
        assert torch.equal(loss, F.negative_elbo(**arguments, beta=0.25, backend=backend.name))
    if backend.name != "reference":  # where autograd itself notices the change
        beta.fill_(4.0)
    made = torch.autograd.grad(loss, list(arguments.values()))
    assert_right(case, dict(zip(EVERY, made, strict=True)), 1.0)


def test_an_empty_batch(backend: Backend) -> None:
    """As in PyTorch: the mean of no rows is NaN, their sum 0."""
    arguments = tensors(Case("negative_elbo", (0, 5)), backend.device)
    for reduction, want in (("mean", math.nan), ("sum", 0.0)):
        loss = F.negative_elbo(**arguments, reduction=reduction, backend=backend.name)
        assert loss.item() == pytest.approx(want, nan_ok=True)
        for gradient in torch.autograd.grad(loss, list(arguments.values())):
            assert gradient.numel() == 0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_loss_is_the_same_with_and_without_gradients(reduction: str, backend: Backend) -> None:
    case = Case("negative_elbo", (300, 33))
    arguments = tensors(case, backend.device)
    options = {"reduction": reduction, "backend": backend.name}
    with_gradients = F.negative_elbo(**arguments, **options)
    with torch.no_grad():
        without = F.negative_elbo(**arguments, **options)
    assert with_gradients.requires_grad and not without.requires_grad
    assert torch.equal(with_gradients.detach(), without)


def test_a_loss_that_is_not_used_makes_no_gradient(backend: Backend) -> None:
    arguments = tensors(Case("negative_elbo", (7, 3)), backend.device)
    loss = F.negative_elbo(**arguments, backend=backend.name)
    other = arguments["mean"].sum() + 0 * loss.detach()
    other.backward()
    assert torch.equal(arguments["mean"].grad, torch.ones_like(arguments["mean"]))
    assert arguments["logvar"].grad is None
