"""The same call gives the same bits: again, with any number of threads, in any batch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cases import ARGUMENTS, FLOATS, Case, priors
from check import run
from conftest import INTERPRETED, Backend
from torch import Tensor

import vae_fast.functional as F

# Few long rows, many short ones, and a square: what a kernel would divide in different ways.
SHAPES = ((1, 70_001), (3, 30_011), (20_011, 3), (301, 257))


@pytest.fixture(autouse=True)
def ordinary_memory(nan_filled_memory: None) -> None:
    """Here torch's deterministic mode must not be what makes a result deterministic."""
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(case: Case, backend: Backend) -> dict[str, Tensor]:
    result, _ = run(case, backend.name, backend.device)
    return {name: t.detach() for name, t in result.outputs.items()} | {
        f"grad {name}": gradient for name, gradient in result.gradients.items()
    }


def assert_identical(first: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, tensor in first.items():
        integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
        a, b = (t.contiguous().view(integers) for t in (tensor, other[name]))
        assert torch.equal(a, b), f"{name}: {int((a != b).sum())} of {a.numel()} differ"


def cases(op: str, shape: tuple[int, ...], dtype: torch.dtype) -> list[Case]:
    prior = {"prior_mean": "full", "prior_logvar": "event"} if priors(op) else {}
    first = Case(op, shape, dtype=dtype, **prior)
    second = Case(
        op, shape, dtype=dtype, logvar="scalar", num_samples=2, reduction="sum", estimator="dreg",
        free_bits=0.3, balance=0.8, return_dims=True, **prior,
    )  # fmt: skip
    third = Case(
        op, shape, dtype=dtype, logvar="event", differentiate=("mean", "logvar"), estimator="stl",
        return_dims=True,
    )  # fmt: skip
    return [first, second, third]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("op", ARGUMENTS)
def test_the_number_of_threads_does_not_matter(
    op: str, dtype: torch.dtype, shape: tuple[int, ...], threads: None, compiled_backend: Backend
) -> None:
    for case in cases(op, shape, dtype):
        torch.set_num_threads(1)
        alone = results(case, compiled_backend)
        for count in (2, 3, 7):
            torch.set_num_threads(count)
            assert_identical(alone, results(case, compiled_backend))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_noise_does_not_depend_on_the_number_of_threads(
    dtype: torch.dtype, threads: None, compiled_backend: Backend
) -> None:
    made = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        made.append(
            F.noise((1001, 67), seed=3, num_samples=2, dtype=dtype, device="cpu",
                    backend=compiled_backend.name)
        )  # fmt: skip
    assert all(torch.equal(made[0], other) for other in made[1:])


@pytest.mark.parametrize("op", ARGUMENTS)
def test_the_same_call_gives_the_same_bits(op: str, backend: Backend) -> None:
    # In Triton's interpreter one program runs after another, and does so slowly.
    again = 1 if backend.name == "triton" and INTERPRETED else 3
    for shape in ((301, 257), (7, 5)):
        for case in cases(op, shape, torch.float32):
            first = results(case, backend)
            for _ in range(again):
                assert_identical(first, results(case, backend))


@pytest.mark.parametrize(
    "op",
    ["sample_kl", "gaussian_kl", "gaussian_log_likelihood", "squared_error", "sample_log_weights"],
)
def test_a_row_has_the_same_value_alone(op: str, compiled_backend: Backend) -> None:
    """Wherever a row stands in memory: a kernel that joins rows would sum them otherwise."""
    generator = torch.Generator().manual_seed(5)
    columns = [torch.randn(9, 101, generator=generator) for _ in range(2)]
    options = {"row_offset": 0, "seed": 3} if "sample" in op else {}

    def rows(start: int, stop: int) -> Tensor:
        if options:
            options["row_offset"] = start
        part = (c[start:stop] for c in columns)
        made = getattr(F, op)(*part, **options, backend=compiled_backend.name)
        return made[1] if isinstance(made, tuple) else made

    whole = rows(0, 9)
    for row in range(9):
        assert torch.equal(rows(row, row + 1)[0], whole[row])


@pytest.mark.parametrize("layout", ["transposed", "sliced", "offset"])
@pytest.mark.parametrize("op", ARGUMENTS)
def test_strides_do_not_matter(op: str, layout: str, compiled_backend: Backend) -> None:
    """Nor in the gradients, whatever strides they come with."""
    contiguous = results(Case(op, (33, 101)), compiled_backend)
    strided = results(Case(op, (33, 101), layout=layout), compiled_backend)
    assert_identical(contiguous, strided)
