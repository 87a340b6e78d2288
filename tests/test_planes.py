"""An operand of fewer dimensions than the event that covers all of it.

``mean`` is ``[5, 1, 8, 8]``. An operand ``[8, 8]`` lacks the size of 1 that the event begins with.
The gradient of the operand is a sum over the rows all the same.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from cases import ARGUMENTS, Case, priors
from check import check
from conftest import Backend
from torch import Tensor, nn

from vae_fast import FusedVAE
from vae_fast.objectives import ELBO, IWAE

SHAPE = (1, 8, 8)
CASES = [
    Case(op, (5, *SHAPE), dtype=dtype, logvar="plane", num_samples=samples,
         **dict.fromkeys(priors(op), "plane"))
    for op in ARGUMENTS
    if "logvar" in ARGUMENTS[op]
    for samples in ((None,) if op == "gaussian_kl" else (None, 2))
    for dtype in (torch.float64, torch.float32)
]  # fmt: skip
# One gradient alone; and those that one pass over memory makes with the loss.
CASES += [
    Case(op, (5, *SHAPE), **{name: "plane"}, differentiate=(name,))
    for op in ARGUMENTS
    for name in ("logvar", *priors(op))
    if name in ARGUMENTS[op]
]
CASES.append(
    Case("negative_elbo", (5, *SHAPE), logvar="plane", differentiate=("mean", "logvar", "kl"))
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case}")
def test_each_op(case: Case, backend: Backend, way: AbstractContextManager[Any]) -> None:
    with way:
        check(case, backend.name, backend.device)


@pytest.mark.parametrize("op", ["gaussian_kl", "gaussian_log_likelihood", "negative_elbo"])
def test_many_rows(op: str, compiled_backend: Backend) -> None:
    """More than the operand has elements: what is written by row would end beside it."""
    check(Case(op, (2000, *SHAPE), logvar="plane"), compiled_backend.name)


class Prior(nn.Module):
    """A prior that learns, of the latent shape without its first size."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.linspace(-1, 1, 64).view(8, 8))
        self.logvar = nn.Parameter(torch.linspace(0.5, -0.5, 64).view(8, 8))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.mean, self.logvar


def model(objective: ELBO | IWAE, backend: str | None) -> FusedVAE:
    torch.manual_seed(0)
    made = FusedVAE(SHAPE, SHAPE, (4,), decoder_variance="per_feature", prior=Prior(),
                    objective=objective, backend=backend)  # fmt: skip
    made.decoder_logvar = nn.Parameter(torch.linspace(-0.5, 0.5, 64).view(8, 8))
    return made.double()


def loss_and_gradients(model: nn.Module, parameters: list[Tensor]) -> list[Tensor]:
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out = model(x, seed=torch.tensor(3))
    return [out.loss.detach(), *torch.autograd.grad(out.loss, parameters)]


OBJECTIVES = (ELBO(), ELBO(2, estimator="stl"), ELBO(2, estimator="score_function"), IWAE(3))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_a_model(objective: ELBO | IWAE, backend: Backend) -> None:
    ours, plain = (model(objective, name) for name in (backend.name, "reference"))
    ours = ours.to(backend.device)
    got = [t.cpu() for t in loss_and_gradients(ours, list(ours.parameters()))]
    torch.testing.assert_close(got, loss_and_gradients(plain, list(plain.parameters())))


# Tracing an autograd.Function, torch makes an object of it, and warns that it does.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_a_compiled_model(objective: ELBO | IWAE, compiled_backend: Backend) -> None:
    torch._dynamo.reset()
    eager = model(objective, "reference")
    ours = copy.deepcopy(eager)
    ours.backend = compiled_backend.name
    compiled = torch.compile(ours, backend="aot_eager")
    got = loss_and_gradients(compiled, list(ours.parameters()))
    torch.testing.assert_close(got, loss_and_gradients(eager, list(eager.parameters())))
