"""Tensors made under ``torch.inference_mode()`` as data, which autograd itself does not save."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import check
import pytest
import torch
from cases import ARGUMENTS, CONSTANTS, Case, priors, tensors
from conftest import Backend
from ops import OPS

import vae_fast.functional as F
from vae_fast import FusedVAE, GaussianPrior
from vae_fast.objectives import ELBO, IWAE

PAIRS = [(op, name) for op, names in ARGUMENTS.items() for name in names if len(names) > 1]


def made_for_inference(tensor: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return tensor.detach().clone()


@pytest.mark.parametrize(("op", "name"), PAIRS)
def test_one_argument_is_data(
    op: str, name: str, backend: Backend, way: AbstractContextManager[Any]
) -> None:
    """The others get the gradients that they get beside an ordinary tensor."""
    case = Case(op, (4, 6), dtype=torch.float64, num_samples=2, **priors(op))
    results = []
    for make in (torch.Tensor.detach, made_for_inference):
        arguments = tensors(case, backend.device)
        others = {n: t for n, t in arguments.items() if n != name}
        with way:
            outputs = check.call(case, arguments | {name: make(arguments[name])}, backend.name)
        loss = sum(o.square().sum() for n, o in outputs.items() if n not in CONSTANTS)
        results.append(torch.autograd.grad(loss, list(others.values()), allow_unused=True))
    for plain, inference in zip(*results, strict=True):
        assert (plain is None) == (inference is None)
        assert plain is None or torch.equal(plain, inference)


def test_noise_is_data(backend: Backend) -> None:
    case = Case("sample_kl", (4, 6), dtype=torch.float64, noise="eps")
    arguments = tensors(case, backend.device)
    given = {n: t for n, t in arguments.items() if t is not None}
    eps = torch.randn(4, 6, dtype=torch.float64, device=backend.device)
    made = []
    for noise in (eps, made_for_inference(eps)):
        z, kl = F.sample_kl(**given, eps=noise, backend=backend.name)
        made.append(torch.autograd.grad(z.square().sum() + kl.sum(), list(given.values())))
    for a, b in zip(*made, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("op", ARGUMENTS)
def test_a_compiled_call_takes_data(
    op: str, mode: Callable[[], AbstractContextManager[Any]], compiled_backend: Backend
) -> None:
    """Without gradients: what a compiled call saves torch saves itself, and refuses these."""
    torch._dynamo.reset()
    case = Case(op, (4, 6), num_samples=2, baseline="rows", differentiate=(), **priors(op))
    given = OPS[op].options(case, "cpu", None) | tensors(case)
    numbers = {"seed": torch.tensor(3), "beta": torch.tensor(0.5)}
    given |= {name: number for name, number in numbers.items() if name in given}
    data = {n: made_for_inference(t) for n, t in given.items() if isinstance(t, torch.Tensor)}
    op_of = getattr(F, op)
    call = torch.compile(op_of, backend="aot_eager", fullgraph=True)
    want = op_of(**given, backend=compiled_backend.name)
    with mode():
        got = call(**(given | data), backend=compiled_backend.name)
    for a, b in zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]:
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


class FixedPrior(torch.nn.Module):
    """N(1, e^0.5), by tensors that were made for inference."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.mean, self.logvar = (
            made_for_inference(torch.full((3,), value, device=device)) for value in (1.0, 0.5)
        )

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.mean, self.logvar


def test_a_model_is_trained_with_such_a_prior(backend: Backend) -> None:
    data = torch.rand(5, 6, device=backend.device)
    gradients = []
    for prior in (
        FixedPrior(backend.device),
        GaussianPrior((3,), 1.0, 0.5, learned=False),
    ):
        torch.manual_seed(0)
        model = FusedVAE(6, 3, (8,), prior=prior, backend=backend.name).to(backend.device)
        model(data, seed=1).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for fixed, buffers in zip(*gradients, strict=True):
        torch.testing.assert_close(fixed, buffers)


@pytest.mark.parametrize("objective", [ELBO(), ELBO(2, "score_function"), IWAE(3, "dreg")])
def test_a_model_in_inference_mode(objective: ELBO | IWAE, backend: Backend) -> None:
    """Networks refuse such data themselves, in training; what follows on them does not."""
    torch.manual_seed(0)
    model = FusedVAE(6, 3, (8,), objective=objective, backend=backend.name).to(backend.device)
    data = torch.rand(5, 6, device=backend.device)
    want = model(data, seed=1)
    with torch.inference_mode():
        got = model(data, seed=1)
    assert torch.equal(got.loss, want.loss) and torch.equal(got.elbo, want.elbo)
