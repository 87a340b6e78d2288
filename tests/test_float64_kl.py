"""A float64 ``kl`` beside tensors of other dtypes: the loss and its gradients are of float64.

``negative_elbo`` computes in float64 if one of its arguments is of it. The answers are those of
``torch.distributions`` in float64.
"""

from __future__ import annotations

import pytest
import torch
from conftest import Backend
from tolerances import unit
from torch import Tensor

import vae_fast.functional as F

EXACT = 1e-12  # of the float64 arithmetic, relative to the largest value
BETA = 0.7
NARROW = (torch.float32, torch.bfloat16)


def arguments(
    backend: Backend, dtype: torch.dtype, samples: int | None, logvar: str, width: int
) -> dict[str, Tensor | None]:
    """x, mean, logvar and kl, the last in float64."""
    rows = 6
    lead = () if samples is None else (samples,)
    shapes = {"full": (*lead, rows, width), "event": (width,), "scalar": (), "none": None}
    shape = shapes[logvar]
    made = {
        "x": 3 * torch.randn(rows, width),
        "mean": torch.randn(*lead, rows, width),
        "logvar": None if shape is None else torch.randn(shape),
        "kl": 5 * torch.rand(rows, dtype=torch.float64),
    }
    return {
        name: t if t is None else t.to(backend.device, t.dtype if name == "kl" else dtype)
        for name, t in made.items()
    }


def answer(given: dict[str, Tensor | None], reduction: str) -> tuple[Tensor, Tensor]:
    """The loss and the log-likelihood of each row."""
    x, mean, logvar, kl = given.values()
    assert x is not None and mean is not None
    deviation = torch.ones_like(mean) if logvar is None else torch.exp(0.5 * logvar)
    log_likelihood = torch.distributions.Normal(mean, deviation).log_prob(x).sum(-1)
    if mean.dim() > x.dim():
        log_likelihood = log_likelihood.mean(0)
    loss = BETA * kl - log_likelihood
    return (loss if reduction == "none" else getattr(loss, reduction)()), log_likelihood


def close(got: Tensor, want: Tensor, roundings: int) -> bool:
    """Equal but for float64 arithmetic and so many roundings to got's dtype."""
    want = want.detach()
    error = (got.detach().cpu().double() - want).abs()
    # Of a product of two roundings there is a trace; bfloat16 is rounded to by way of float32.
    rounding = 1.01 * roundings * unit(got.dtype) * want.abs()
    return bool((error <= rounding + EXACT * want.abs().max()).all())


def both(
    backend: Backend, given: dict[str, Tensor | None], wanted: tuple[str, ...], reduction: str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Loss, log-likelihood and gradients, of the backend and right."""
    found = []
    for wide in (False, True):
        leaves = {
            name: t if t is None else (t.detach().cpu().double() if wide else t.detach())
            for name, t in given.items()
        }
        inputs = [leaves[name].requires_grad_() for name in wanted]
        if wide:
            loss, log_likelihood = answer(leaves, reduction)
        else:
            loss, log_likelihood = F.negative_elbo_terms(
                **leaves, beta=BETA, reduction=reduction, backend=backend.name
            )
        above = torch.linspace(0.3, 1.1, loss.numel(), dtype=torch.float64).view(loss.shape)
        gradients = torch.autograd.grad(loss, inputs, above.to(loss)) if inputs else ()
        found.append((loss, log_likelihood, *gradients))
    return found[0], found[1]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("logvar", ["full", "event", "scalar", "none"])
@pytest.mark.parametrize("samples", [None, 3])
@pytest.mark.parametrize("x_too", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("width", [24, 1031])
def test_is_computed_in_float64(
    width: int,
    reduction: str,
    x_too: bool,
    samples: int | None,
    logvar: str,
    dtype: torch.dtype,
    backend: Backend,
) -> None:
    given = arguments(backend, dtype, samples, logvar, width)
    wanted = tuple(n for n, t in given.items() if t is not None and (n != "x" or x_too))
    got, want = both(backend, given, wanted, reduction)
    for name, value, goal in zip(("loss", "log-likelihood"), got, want, strict=False):
        assert value.dtype is torch.float64, f"{name} is {value.dtype}"
        assert close(value, goal, 0), name
    for name, gradient, goal in zip(wanted, got[2:], want[2:], strict=True):
        assert gradient.dtype is given[name].dtype
        # In one pass it is stored, and then scaled by what arrives.
        stored = reduction != "none" and not x_too
        assert close(gradient, goal, 0 if name == "kl" else 2 if stored else 1), name


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_without_gradients(reduction: str, backend: Backend) -> None:
    for samples in (None, 2):
        given = arguments(backend, torch.float32, samples, "full", 24)
        got, want = both(backend, given, (), reduction)
        assert all(value.dtype is torch.float64 for value in got)
        assert close(got[0], want[0], 0) and close(got[1], want[1], 0)


def test_the_one_pass_gradients_are_rounded_once(backend: Backend) -> None:
    """Where 1 arrives nothing is scaled."""
    given = arguments(backend, torch.float32, None, "full", 1031)
    found = []
    for wide in (False, True):
        leaves = {n: t.detach().cpu().double() if wide else t.detach() for n, t in given.items()}
        inputs = [leaves[name].requires_grad_() for name in ("mean", "logvar")]
        loss = (
            answer(leaves, "mean")[0]
            if wide
            else F.negative_elbo(**leaves, beta=BETA, backend=backend.name)
        )
        found.append(torch.autograd.grad(loss, inputs))
    assert all(close(got, want, 1) for got, want in zip(*found, strict=True))


def test_a_float64_gradient_from_above_is_not_rounded_first(backend: Backend) -> None:
    """The two-pass form sees no ``kl``, but the loss's gradient in float64."""
    given = arguments(backend, torch.float32, 2, "full", 24)
    given["x"] = given["mean"][0] + 1e-3  # small differences, whose sum over the samples cancels
    got, want = both(backend, given, ("x", "mean", "logvar"), "none")
    for gradient, goal in zip(got[2:], want[2:], strict=True):
        assert close(gradient, goal, 1)
