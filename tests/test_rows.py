"""NaN and infinity reach the rows that hold them and no other, in values and in gradients."""

from __future__ import annotations

import math

import check
import pytest
import torch
from cases import ARGUMENTS, Case, tensors, upstream
from conftest import Backend
from torch import Tensor

POISONS = (math.nan, math.inf, -math.inf)
POISONED = [(op, name) for op in ARGUMENTS for name in ARGUMENTS[op]]
ROW = 2


def run(
    case: Case, backend: Backend, name: str | None, poison: float, place: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    arguments = tensors(case, backend.device)
    if name is not None:
        with torch.no_grad():
            arguments[name].view(arguments[name].shape[0], -1)[ROW, place] = poison
    outputs = check.call(case, arguments, backend.name)
    return outputs, check.differentiate(outputs, arguments, upstream(case, outputs))


def other_rows(case: Case, name: str, tensor: Tensor) -> Tensor:
    """The rows of an output or gradient that nobody poisoned."""
    axis = 1 if name == "z" and case.num_samples is not None else 0
    return torch.cat([tensor.narrow(axis, 0, ROW), tensor.narrow(axis, ROW + 1, 2)], axis)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [3, 37, 1029])
@pytest.mark.parametrize("poison", POISONS, ids=str)
@pytest.mark.parametrize(("op", "name"), POISONED)
def test_only_their_own_rows(
    op: str, name: str, poison: float, width: int, dtype: torch.dtype, backend: Backend
) -> None:
    prior = {"prior_mean": "full", "prior_logvar": "full"} if "prior_mean" in ARGUMENTS[op] else {}
    samples = 2 if op == "sample_kl" else None
    case = Case(op, (5, width), dtype=dtype, reduction="none", num_samples=samples, **prior)
    clean_outputs, clean_gradients = run(case, backend, None, 0.0, 0)
    for place in {0, width // 2, width - 1} if name != "kl" else {0}:
        outputs, gradients = run(case, backend, name, poison, place)
        for made, clean in ((outputs, clean_outputs), (gradients, clean_gradients)):
            for key, tensor in made.items():
                got, want = (other_rows(case, key, t) for t in (tensor, clean[key]))
                assert torch.equal(got, want), f"{key} of a row without {poison} changed"
        with torch.no_grad():
            arguments = tensors(case)
            arguments[name].view(5, -1)[ROW, place] = poison
            answer = check.answer(
                case, {k: t if t is None else t.double() for k, t in arguments.items()}
            )
        for key, tensor in outputs.items():
            got, want = tensor.cpu().double(), answer[key]
            assert torch.equal(got.isnan(), want.isnan()), key
            assert torch.equal(got.isinf(), want.isinf()), key
            assert torch.equal(got[got.isinf()], want[want.isinf()]), key


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_poisoned_row_leaves_the_gradients_of_the_others_alone(
    reduction: str, backend: Backend
) -> None:
    """The loss is NaN, the gradients of the rows that made it so too, and no more."""
    case = Case("negative_elbo", (5, 37), reduction=reduction)
    _, clean = run(case, backend, None, 0.0, 0)
    outputs, gradients = run(case, backend, "mean", math.nan, 4)
    assert outputs["loss"].isnan()
    assert gradients["mean"][ROW, 4].isnan()
    for name, gradient in gradients.items():
        assert torch.equal(*(other_rows(case, name, t) for t in (gradient, clean[name]))), name


def test_equal_infinities_are_no_number(backend: Backend) -> None:
    x = torch.tensor([[math.inf, 1.0], [2.0, 1.0]], device=backend.device)
    got = check.F.gaussian_log_likelihood(x, x.clone(), backend=backend.name)
    assert got[0].isnan() and got[1].isfinite()
