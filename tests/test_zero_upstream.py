"""Where nothing arrives from above nothing goes on: 0 gives 0, whatever the row holds.

A product with 0 would not do: what it is multiplied by may be infinite, at finite inputs too, or
NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import check
import pytest
import torch
from cases import ARGUMENTS, Case, given_noise, priors, tensors, upstream
from conftest import Backend
from ops.common import Arguments, Named
from torch import Tensor

ROWS = 5
BAD = [0, 3]  # rows for which nothing arrives
EVERYWHERE = (-math.inf, math.inf)
BOUNDED = (-30.0, 20.0)
# (elements of a row, dtype, bounds): whole packs of 16 bytes and others, rows of one tile and of
# two, half precision that is read in place, which it is within bounds alone.
SITUATIONS = (
    (3, torch.float32, EVERYWHERE),
    (40, torch.bfloat16, BOUNDED),
    (40, torch.bfloat16, EVERYWHERE),
    (40, torch.float32, BOUNDED),
    (1029, torch.float64, EVERYWHERE),
)
CALLS = [
    pytest.param(op, options, id="-".join((op, *map(str, options.values()))))
    for op, options in (
        ("sample_kl", {}),
        ("sample_kl", {"num_samples": 2}),
        ("sample_kl", {"prior": True}),
        ("sample_kl", {"prior": True, "free_bits": 0.3, "balance": 0.8}),
        ("sample_kl", {"upstream": ("z",)}),
        ("gaussian_kl", {}),
        ("gaussian_kl", {"free_bits": 0.3}),
        ("gaussian_kl", {"prior": True}),
        ("gaussian_log_likelihood", {}),
        ("gaussian_log_likelihood", {"logvar": None}),
        ("gaussian_log_likelihood", {"num_samples": 2}),
        ("squared_error", {}),
        ("negative_elbo", {"reduction": "none"}),
        ("negative_elbo", {"reduction": "none", "num_samples": 2}),
        ("sample_log_weights", {"num_samples": 2}),
        ("sample_log_weights", {"num_samples": 2, "estimator": "stl"}),
        ("sample_log_weights", {"prior": True, "num_samples": 2, "estimator": "dreg"}),
        ("sample_log_weights", {"prior": True, "num_samples": 2}),
        ("score_function", {}),
        ("score_function", {"num_samples": 2, "baseline": "rows"}),
    )
]
SAMPLED = ("z", "log_ratio", "value", "signal")


def make(op: str, options: dict, width: int, dtype: torch.dtype, **more) -> Case:
    options = dict(options)
    prior = priors(op) if options.pop("prior", False) else {}
    return Case(op, (ROWS, width), dtype=dtype, **prior, **options, **more)


def by_rows(case: Case, name: str, tensor: Tensor) -> Tensor:
    """A view with the rows in front."""
    sampled = name in SAMPLED or tensor.shape[:2] == (case.num_samples, ROWS)
    return tensor.movedim(1, 0) if sampled and case.num_samples is not None else tensor


def overflows(case: Case) -> Iterator[dict[str, float]]:
    """Finite values at which derivatives overflow: a mean far off, and variances that do."""
    double = case.dtype is torch.float64
    huge, far = (1e200, 2000.0) if double else (1e30, 200.0)
    if "mean" in ARGUMENTS[case.op]:
        yield {"mean": huge, "x": -huge}
        yield {"mean": huge, "logvar": -far, "prior_logvar": -far}
        yield {"mean": huge, "logvar": far, "prior_logvar": far}
        yield {"logvar": far, "prior_logvar": -far}


def poisons(case: Case) -> Iterator[dict[str, float]]:
    """What the bad rows hold."""
    yield from overflows(case)
    for name in ARGUMENTS[case.op]:
        if case.argument_shape(name) is not None and name != "signal":
            yield {name: math.nan}
    yield {name: math.inf for name in ARGUMENTS[case.op] if name != "signal"}


def poisoned(case: Case, values: dict[str, float], rows: list[int], device: str) -> Arguments:
    """The case's arguments, those rows holding these values where the argument has rows."""
    arguments = tensors(case, device)
    with torch.no_grad():
        for name, value in values.items():
            tensor = arguments.get(name)
            if tensor is not None and tensor.dim() > 0 and ROWS in tensor.shape[:2]:
                by_rows(case, name, tensor)[rows] = value
    return arguments


def gradients(case: Case, arguments: Arguments, rows: list[int], backend: Backend) -> Named:
    """Of the arguments, where 0 arrives for these rows."""
    outputs = check.call(case, arguments, backend.name)
    above = upstream(case, outputs)
    for name, gradient in above.items():
        by_rows(case, name, gradient)[rows] = 0.0
    return check.differentiate(outputs, arguments, above)


def assert_same(got: Named, want: Named, about: object) -> None:
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert torch.equal(got[name], tensor), f"gradient of {name}, {about}"


@pytest.mark.parametrize(("width", "dtype", "bounds"), SITUATIONS, ids=str)
@pytest.mark.parametrize(("op", "options"), CALLS)
def test_rows_that_nothing_arrives_for(
    op: str,
    options: dict,
    width: int,
    dtype: torch.dtype,
    bounds: tuple[float, float],
    backend: Backend,
) -> None:
    case = make(op, options, width, dtype, bounds=bounds)
    want = gradients(case, tensors(case, backend.device), BAD, backend)
    for name, gradient in want.items():
        assert not by_rows(case, name, gradient)[BAD].any(), name
        assert gradient.any() or name == "kl", name
    for values in poisons(case):
        arguments = poisoned(case, values, BAD, backend.device)
        assert_same(gradients(case, arguments, BAD, backend), want, values)


@pytest.mark.parametrize("logvar", ["event", "row", "scalar"])
@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("sample_kl", {}),
        ("sample_kl", {"prior_logvar": "event"}),
        ("gaussian_kl", {"prior_mean": "scalar", "prior_logvar": "scalar"}),
        ("gaussian_log_likelihood", {}),
        ("gaussian_log_likelihood", {"num_samples": 2}),
        ("negative_elbo", {"reduction": "none"}),
        ("sample_log_weights", {"num_samples": 2, "estimator": "dreg"}),
        ("score_function", {}),
    ],
    ids=str,
)
def test_sums_over_rows_leave_them_out(
    op: str, options: dict, logvar: str, backend: Backend
) -> None:
    """The gradient of what the rows share is that of the others."""
    case = Case(op, (ROWS, 40), logvar=logvar, bounds=EVERYWHERE, **options)
    want = gradients(case, tensors(case, backend.device), BAD, backend)
    for values in (*poisons(case), {"mean": 1e30, "x": math.nan}):
        kept = {name: value for name, value in values.items() if name in ("mean", "x", "kl")}
        arguments = poisoned(case, kept, BAD, backend.device)
        assert_same(gradients(case, arguments, BAD, backend), want, kept)


@pytest.mark.parametrize(
    ("width", "dtype", "expanded"), [(3, torch.float32, True), (40, torch.bfloat16, False)]
)
@pytest.mark.parametrize(("op", "options"), CALLS)
def test_nothing_arrives_at_all(
    op: str, options: dict, width: int, dtype: torch.dtype, expanded: bool, backend: Backend
) -> None:
    case = make(op, options, width, dtype, bounds=EVERYWHERE)
    for values in poisons(case):
        arguments = poisoned(case, values, list(range(ROWS)), backend.device)
        outputs = check.call(case, arguments, backend.name)
        above = {name: torch.zeros_like(outputs[name]) for name in upstream(case, outputs)}
        if expanded:
            above = {name: g.new_zeros(()).expand(g.shape) for name, g in above.items()}
        for name, gradient in check.differentiate(outputs, arguments, above).items():
            assert torch.equal(gradient, torch.zeros_like(gradient)), (name, values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_samples", [None, 3])
def test_single_elements_of_a_sample(
    num_samples: int | None, dtype: torch.dtype, backend: Backend
) -> None:
    """Through z it is each element's own gradient that counts."""
    case = Case("sample_kl", (ROWS, 21), dtype=dtype, num_samples=num_samples, bounds=EVERYWHERE,
                upstream=("z",))  # fmt: skip
    found = []
    for value in (None, 2000.0 if dtype is torch.float64 else 200.0, math.nan):
        arguments = tensors(case, backend.device)
        if value is not None:
            with torch.no_grad():
                arguments["logvar"][1, ::4] = value
        outputs = check.call(case, arguments, backend.name)
        above = upstream(case, outputs)
        above["z"][..., 1, ::4] = 0.0
        found.append(check.differentiate(outputs, arguments, above))
    assert not found[0]["logvar"][1, ::4].any() and found[0]["logvar"][1, 1::4].all()
    assert_same(found[1], found[0], "overflow")
    assert_same(found[2], found[0], math.nan)


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30], ids=str)
@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("sample_kl", {}),
        ("sample_log_weights", {}),
        ("sample_log_weights", {"estimator": "stl"}),
        ("sample_log_weights", {"estimator": "dreg", "prior": True}),
        ("score_function", {}),
    ],
    ids=str,
)
def test_one_sample_of_a_row(op: str, options: dict, poison: float, backend: Backend) -> None:
    """A sample that nothing arrives for leaves those of the others as they are, its noise being
    what it may."""
    case = make(op, options, 40, torch.float32, num_samples=3, noise="eps")
    row, sample = 2, 1
    found = []
    for value in (0.5, poison):
        arguments = tensors(case, backend.device)
        eps = given_noise(case, backend.device)
        eps[sample, row] = value
        outputs = check.call(case, arguments, backend.name, eps)
        above = upstream(case, outputs)
        for name in above.keys() & set(SAMPLED):
            above[name][sample, row] = 0.0
        found.append(check.differentiate(outputs, arguments, above))
    assert_same(found[1], found[0], poison)
    assert found[0]["logvar"][row].all()


@pytest.mark.parametrize("prior", [False, True])
def test_what_arrives_by_row_and_by_column_may_cancel(prior: bool, backend: Backend) -> None:
    """The KL of an element gets the sum of its row's gradient and its column's."""
    case = make("sample_kl", {"prior": prior}, 40, torch.float32, return_dims=True,
                bounds=EVERYWHERE, upstream=("kl", "kl_dims"))  # fmt: skip
    found = []
    for values in ({}, *poisons(case)):
        arguments = poisoned(case, values, BAD, backend.device)
        outputs = check.call(case, arguments, backend.name)
        above = upstream(case, outputs)
        above["kl_dims"] = torch.full_like(above["kl_dims"], 0.75)
        above["kl"][BAD] = -0.75
        found.append(check.differentiate(outputs, arguments, above))
        assert_same(found[-1], found[0], values)
    assert all(not gradient[BAD].any() and gradient.any() for gradient in found[0].values())


@pytest.mark.parametrize("differentiate", [("mean", "logvar", "kl"), None], ids=["one", "two"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("width", "dtype", "bounds"), SITUATIONS, ids=str)
def test_a_loss_times_zero(
    width: int,
    dtype: torch.dtype,
    bounds: tuple[float, float],
    reduction: str,
    differentiate: tuple[str, ...] | None,
    backend: Backend,
) -> None:
    """In one pass too, where gradients that are infinite by then have to be made 0."""
    case = make("negative_elbo", {}, width, dtype, reduction=reduction, bounds=bounds,
                differentiate=differentiate)  # fmt: skip
    for values in poisons(case):
        arguments = poisoned(case, values, BAD, backend.device)
        outputs = check.call(case, arguments, backend.name)
        above = {"loss": torch.zeros_like(outputs["loss"])}
        for name, gradient in check.differentiate(outputs, arguments, above).items():
            assert torch.equal(gradient, torch.zeros_like(gradient)), (name, values)


def test_a_path_of_weight_zero(backend: Backend) -> None:
    """Of "dreg" a sample's share may be 0, and then nothing comes through its z."""
    case = make("sample_log_weights", {"prior": True}, 40, torch.float32, num_samples=3,
                estimator="dreg")  # fmt: skip
    found = []
    for value in (1.0, math.inf):
        arguments = tensors(case, backend.device)
        outputs = check.call(case, arguments, backend.name)
        above = upstream(case, outputs)
        above["log_ratio"][1, 2] = 0.0
        above["z"][1, 2] = value
        found.append(check.differentiate(outputs, arguments, above))
    assert_same(found[1], found[0], math.inf)


def test_a_signal_that_is_no_number(backend: Backend) -> None:
    case = make("score_function", {}, 40, torch.float32, num_samples=2, baseline="rows")
    want = gradients(case, tensors(case, backend.device), BAD, backend)
    arguments = poisoned(case, {"signal": math.nan}, BAD, backend.device)
    assert_same(gradients(case, arguments, BAD, backend), want, math.nan)
