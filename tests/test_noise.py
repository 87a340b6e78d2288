"""The noise: known answers, its distribution, and what it does not depend on."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import oracle
import pytest
import torch
from cases import FLOATS, HALVES
from conftest import Backend
from tolerances import KOLMOGOROV_QUANTILE, NOISE, NORMAL_QUANTILE, arithmetic, unit
from torch import Tensor

import vae_fast.functional as F
from vae_fast._backends import _native

DATA = Path(__file__).parent / "data"
VECTORS = json.loads((DATA / "noise_vectors.json").read_text())["noise"]
CASES = [
    pytest.param(int(case["seed"]), case["sample"], int(element), value,
                 id=f"{int(case['seed']):x}-{case['sample']}-{element}")
    for case in VECTORS
    for element, value in zip(case["element"], case["noise"], strict=True)
]  # fmt: skip


def make(shape: tuple[int, ...], backend: Backend, *, seed: int | Tensor = 7, **options) -> Tensor:
    options = {"dtype": torch.float32, "device": backend.device} | options
    return F.noise(shape, seed=seed, backend=backend.name, **options)


def allowed(dtype: torch.dtype, want: Tensor) -> Tensor:
    return NOISE[arithmetic(dtype)] + (unit(dtype) * want.abs() if dtype in HALVES else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("seed", "sample", "element", "value"), CASES)
def test_known_answers(
    seed: int, sample: int, element: int, value: float, dtype: torch.dtype, backend: Backend
) -> None:
    got = make(
        (1,), backend, seed=seed, row_offset=element, num_samples=sample + 1, event_dims=0,
        dtype=dtype,
    )  # fmt: skip
    assert got[sample].item() == pytest.approx(value, rel=0, abs=NOISE[dtype])


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Of the known answers."""
    monkeypatch.syspath_prepend(str(DATA))
    import make_noise_vectors

    yield make_noise_vectors
    sys.modules.pop("make_noise_vectors")


def test_the_known_answers_are_what_their_generator_makes(generator: ModuleType) -> None:
    assert generator.main(["--check"]) == 0


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize(
    ("shape", "event_dims", "num_samples", "row_offset"),
    [
        ((1,), None, None, 0),
        ((5,), 1, None, 3),
        ((4, 7), None, 3, 0),
        ((4, 7), None, None, 5),
        ((3, 5, 2), 1, 2, 7),
        ((3, 5, 2), 0, None, 1),
        ((2, 3), 2, None, 2**33 + 1),
        ((300, 1), None, 2, 2**32 - 100),
    ],
)
def test_matches_the_oracle(
    shape, event_dims, num_samples, row_offset, seed: int, dtype: torch.dtype, backend: Backend
) -> None:
    options = {"row_offset": row_offset, "num_samples": num_samples}
    got = make(shape, backend, seed=seed, event_dims=event_dims, dtype=dtype, **options)
    dims = len(shape) - 1 if event_dims is None else event_dims
    want = oracle.noise(shape, seed, dims, **options)
    assert got.dtype is dtype and got.shape == want.shape and got.device.type == backend.device
    assert bool(((got.cpu().double() - want).abs() <= allowed(dtype, want)).all())


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,), (2, 0, 3)], ids=str)
def test_empty(shape: tuple[int, ...], backend: Backend) -> None:
    assert make(shape, backend).shape == shape
    assert make(shape, backend, num_samples=2).shape == (2, *shape)


def test_a_million_and_one_elements(backend: Backend) -> None:
    got = make((1, 10**6 + 1), backend)
    error = (got.cpu().double() - oracle.noise((1, 10**6 + 1), 7, 1)).abs()
    assert error.max().item() <= NOISE[torch.float32]


def test_half_precision_is_the_float32_noise_rounded(backend: Backend) -> None:
    single = make((33, 17), backend)
    for dtype in HALVES:
        assert torch.equal(make((33, 17), backend, dtype=dtype), single.to(dtype))


def test_a_seed_tensor_is_its_bits(backend: Backend) -> None:
    for seed in (0, 5, 2**63 - 1, 2**63, 2**64 - 1):
        signed = seed - 2**64 if seed >= 2**63 else seed
        tensor = torch.tensor(signed, device=backend.device)
        assert torch.equal(make((9, 5), backend, seed=seed), make((9, 5), backend, seed=tensor))


def test_no_sample_axis_is_sample_zero(backend: Backend) -> None:
    assert torch.equal(make((9, 5), backend), make((9, 5), backend, num_samples=3)[0])


@pytest.mark.parametrize("row_size", [1, 2, 3, 4, 7, 33])
def test_a_split_batch_gets_the_noise_of_the_whole(row_size: int, backend: Backend) -> None:
    whole = make((24, row_size), backend, num_samples=2)
    for parts in (2, 3, 8, 24):
        rows = 24 // parts
        split = [
            make((rows, row_size), backend, num_samples=2, row_offset=rank * rows)
            for rank in range(parts)
        ]
        assert torch.equal(torch.cat(split, dim=1), whole)


def test_shape_does_not_matter_but_for_the_row_size(backend: Backend) -> None:
    flat = make((8, 30), backend)
    assert torch.equal(make((8, 5, 3, 2), backend).flatten(1), flat)
    assert torch.equal(make((2, 4, 30), backend, event_dims=1).view(8, 30), flat)
    assert torch.equal(make((240,), backend, event_dims=1), flat.flatten())


def test_float64_noise_is_made_in_float64(backend: Backend) -> None:
    got = make((100, 33), backend, dtype=torch.float64).cpu()
    assert bool(((got - oracle.noise((100, 33), 7, 1)).abs() <= NOISE[torch.float64]).all())


def columns(backend: Backend, count: int = 1 << 18) -> Tensor:
    return make((count,), backend, event_dims=0).double()


def test_moments(backend: Backend) -> None:
    values = columns(backend)
    n = values.numel()
    assert abs(values.mean().item()) * math.sqrt(n) < NORMAL_QUANTILE
    # Standard errors of the sample moments of a normal distribution.
    for power, moment, error in ((2, 1, 2), (3, 0, 15), (4, 3, 96)):
        score = (values.pow(power).mean().item() - moment) * math.sqrt(n / error)
        assert abs(score) < NORMAL_QUANTILE, (power, score)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_kolmogorov_smirnov(seed: int, stride: int, backend: Backend) -> None:
    """Cosine and sine halves and single places of a block are normal too, not only all together."""
    everything = make((1 << 17,), backend, event_dims=0, seed=seed).double()
    for start in range(stride):
        values = everything[start::stride].sort().values
        n = values.numel()
        cumulative = torch.special.ndtr(values)
        steps = torch.arange(n + 1, dtype=torch.float64, device=values.device) / n
        distance = torch.maximum((steps[1:] - cumulative).max(), (cumulative - steps[:-1]).max())
        assert distance.item() * math.sqrt(n) < KOLMOGOROV_QUANTILE


def test_the_tails_are_there(backend: Backend) -> None:
    """Of 2^20 values, 66.4 are expected past 4 in absolute value (Poisson)."""
    values = make((1 << 20,), backend, event_dims=0).double().abs()
    expected = (1 << 20) * 2 * torch.special.ndtr(torch.tensor(-4.0, dtype=torch.float64)).item()
    count = int((values > 4).sum())
    assert abs(count - expected) < NORMAL_QUANTILE * math.sqrt(expected)
    assert values.max().item() <= math.sqrt(66 * math.log(2)) + NOISE[torch.float32]


def correlation_score(a: Tensor, b: Tensor) -> float:
    """A standard normal score where a and b are independent standard normals."""
    return (a * b).mean().item() * math.sqrt(a.numel())


def assert_independent(a: Tensor, b: Tensor) -> None:
    a, b = a.double().flatten(), b.double().flatten()
    assert abs(correlation_score(a, b)) < NORMAL_QUANTILE
    squares = [(t.square() - 1) / math.sqrt(2) for t in (a, b)]
    assert abs(correlation_score(*squares)) < NORMAL_QUANTILE


def test_independence(backend: Backend) -> None:
    count = 1 << 16
    planes = make((count,), backend, event_dims=0, num_samples=4)
    for other in range(1, 4):
        assert_independent(planes[0], planes[other])  # samples
    for lag in (1, 2, 3, 4, 5, 32, 4096):
        assert_independent(planes[0][:-lag], planes[0][lag:])  # elements, and so rows
    for seed in (6, 8, 7 + 2**32, 7 + 2**63):
        assert_independent(planes[0], make((count,), backend, event_dims=0, seed=seed))
    far = make((count,), backend, event_dims=0, row_offset=2**34)
    assert_independent(planes[0], far)


def test_a_row_is_not_repeated(backend: Backend) -> None:
    rows = make((4096, 8), backend, num_samples=2).flatten(0, 1)
    assert torch.unique(rows, dim=0).shape[0] == rows.shape[0]


@pytest.mark.parametrize("seed", [0, 0x9E3779B97F4A7C15, 2**64 - 1])
def test_a_cuda_generators_draw_is_of_its_philox_block(seed: int) -> None:
    """As ``random_`` has it: the first word is the upper half (``tests/gpu/test_seeds.py``)."""
    if _native.missing is not None:
        pytest.skip(_native.missing.reason)
    for offset in (0, 4, 2**34 - 4, 2**34, 2**63):
        block = np.array([offset // 4], dtype=np.uint64)
        zero = np.zeros_like(block)
        words = oracle.philox4x32_10([block & oracle.WORD, block >> oracle.HALF, zero, zero], seed)
        want = int(words[0][0]) << 32 | int(words[1][0])
        assert _native.module.cuda_draw(seed, offset) == want


def test_the_number_of_a_block_carries_within_a_call(backend: Backend) -> None:
    """Blocks whose number passes 2**32 in the middle of the vectors that make them."""
    before, rows = 37, 100
    first = 2**32 - before  # a block a row
    halves = (
        make((before, 4), backend, row_offset=first),
        make((rows - before, 4), backend, row_offset=2**32),
    )
    assert torch.equal(make((rows, 4), backend, row_offset=first), torch.cat(halves))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("rows", "width"), [(1, 1), (5, 1), (2, 2), (3, 7), (11, 12), (2, 1029), (40, 33)]
)
def test_the_last_indices(
    rows: int, width: int, dtype: torch.dtype, backend: Backend, generator: ModuleType
) -> None:
    """Up to 2**64 - 1, or as near to it as a whole row ends."""
    offset = 2**64 // width - rows
    got = make((rows, width), backend, row_offset=offset, num_samples=2, dtype=dtype).cpu().double()
    places = {(0, 0), (0, width - 1), (rows // 2, width // 2), (rows - 1, 0), (rows - 1, width - 1)}
    for row, column in places:
        element = (offset + row) * width + column
        answers = [generator.noise(7, sample, element) for sample in (0, 1)]
        want = torch.tensor(answers, dtype=torch.float64)
        error = (got[:, row, column] - want).abs()
        assert bool((error <= allowed(dtype, want)).all()), (row, column)
    # Where it is made inside of another op.
    zeros = torch.zeros(rows, width, dtype=dtype, device=backend.device)
    options = {"seed": 7, "row_offset": offset, "num_samples": 2, "backend": backend.name}
    z = F.sample_kl(zeros, zeros, event_dims=1, **options)[0]
    torch.testing.assert_close(
        z.cpu().double(), got, rtol=2 * unit(dtype), atol=NOISE[arithmetic(dtype)]
    )
