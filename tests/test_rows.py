"""NaN and infinity reach the rows that hold them and no other, in values and in gradients."""

from __future__ import annotations

import itertools
import math

import check
import pytest
import torch
from cases import ARGUMENTS, Case, priors, tensors, upstream
from conftest import Backend
from ops.common import Arguments, Named
from torch import Tensor

POISONS = (math.nan, math.inf, -math.inf)
WIDTHS, DTYPES = (3, 40, 1029), (torch.float32, torch.float64, torch.bfloat16)
EVERY_SIZE = tuple(itertools.product(WIDTHS, DTYPES))
SOME_SIZES = tuple(zip(WIDTHS, DTYPES, strict=True))
# A call's options, its poisoned argument, and the sizes that it is tried in.
POISONED = [
    pytest.param(op, name, options, width, dtype, id=f"{op}-{name}-{width}-{dtype}-{kind}")
    for op, options, kind, sizes in (
        ("sample_kl", {"num_samples": 2}, "plain", EVERY_SIZE),
        ("gaussian_kl", {}, "plain", EVERY_SIZE),
        ("gaussian_log_likelihood", {}, "plain", EVERY_SIZE),
        ("negative_elbo", {"reduction": "none"}, "plain", EVERY_SIZE),
        ("sample_kl", {"free_bits": 0.3, "balance": 0.8}, "controlled", SOME_SIZES),
        ("squared_error", {}, "plain", SOME_SIZES),
        ("sample_log_weights", {"num_samples": 2}, "plain", SOME_SIZES),
        ("sample_log_weights", {"num_samples": 2, "estimator": "dreg"}, "dreg", SOME_SIZES[1:2]),
        ("score_function", {"num_samples": 2, "baseline": "rows"}, "plain", SOME_SIZES),
        ("importance_weighted_elbo", {}, "plain", SOME_SIZES),
    )
    for name in ARGUMENTS[op]
    for width, dtype in sizes
]
SAMPLED = ("z", "log_ratio", "value", "signal", "weights", "log_weights")
ROW = 2


def make(op: str, width: int, dtype: torch.dtype, options: dict) -> Case:
    """A case of five rows; of log-weights the width is the number of samples."""
    if op == "importance_weighted_elbo":
        return Case(op, (5,), num_samples=width, dtype=dtype, **options)
    return Case(op, (5, width), dtype=dtype, **priors(op), **options)


def by_rows(case: Case, name: str, tensor: Tensor) -> Tensor:
    """A view with the rows in front."""
    return tensor.movedim(1, 0) if name in SAMPLED and case.num_samples is not None else tensor


def poisoned(case: Case, name: str | None, poison: float, place: int, device: str) -> Arguments:
    arguments = tensors(case, device)
    if name is not None:
        with torch.no_grad():
            by_rows(case, name, arguments[name])[ROW].view(-1)[place] = poison
    return arguments


def run(
    case: Case, backend: Backend, name: str | None, poison: float, place: int
) -> tuple[Named, Named]:
    arguments = poisoned(case, name, poison, place, backend.device)
    outputs = check.call(case, arguments, backend.name)
    return outputs, check.differentiate(outputs, arguments, upstream(case, outputs))


def other_rows(case: Case, name: str, tensor: Tensor) -> Tensor:
    """The rows of an output or gradient that nobody poisoned."""
    return by_rows(case, name, tensor)[[0, 1, 3, 4]]


@pytest.mark.parametrize("poison", POISONS, ids=str)
@pytest.mark.parametrize(("op", "name", "options", "width", "dtype"), POISONED)
def test_only_their_own_rows(
    op: str,
    name: str,
    options: dict,
    width: int,
    dtype: torch.dtype,
    poison: float,
    backend: Backend,
) -> None:
    case = make(op, width, dtype, options)
    clean_outputs, clean_gradients = run(case, backend, None, 0.0, 0)
    size = by_rows(case, name, tensors(case)[name])[ROW].numel()
    for place in {0, size // 2, size - 1}:
        outputs, gradients = run(case, backend, name, poison, place)
        for made, clean in ((outputs, clean_outputs), (gradients, clean_gradients)):
            for key, tensor in made.items():
                got, want = (other_rows(case, key, t) for t in (tensor, clean[key]))
                assert torch.equal(got, want), f"{key} of a row without {poison} changed"
        with torch.no_grad():
            arguments = poisoned(case, name, poison, place, "cpu")
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
