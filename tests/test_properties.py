"""Any shape, strides, dtypes and arguments that the contract allows, drawn by hypothesis."""

from __future__ import annotations

import check
import oracle
import torch
from cases import ARGUMENTS, BROADCASTS, FLOATS, HALVES, LAYOUTS, Case
from conftest import Backend
from hypothesis import given
from hypothesis import strategies as st
from tolerances import NOISE, arithmetic, unit

import vae_fast.functional as F

SHAPES = st.lists(st.integers(0, 9), min_size=1, max_size=5).map(tuple)
# Around the widths of vector registers and blocks, where the remainder's code begins.
EDGES = st.tuples(
    st.integers(1, 3),
    st.sampled_from(
        [15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 255, 257, 1023, 1025, 2049, 4097]
    ),
)
SEEDS = st.integers(0, 2**64 - 1)


def flipped(shape: tuple[int, ...], flip: bool) -> tuple[int, ...]:
    return shape[::-1] if flip else shape


@st.composite
def any_shape(draw: st.DrawFn) -> tuple[tuple[int, ...], int | None]:
    shape = draw(st.one_of(SHAPES, st.builds(flipped, EDGES, st.booleans())))
    return shape, draw(st.one_of(st.none(), st.integers(0, len(shape))))


@st.composite
def any_case(draw: st.DrawFn, op: str) -> Case:
    shape, event_dims = draw(any_shape())
    dtype = draw(st.sampled_from(FLOATS))
    names = ARGUMENTS[op]
    options: dict[str, object] = {
        "layout": draw(st.sampled_from([name for name in LAYOUTS if name != "channels_last"])),
        "num_samples": draw(st.one_of(st.none(), st.integers(1, 3))),
        "logvar": draw(st.sampled_from(BROADCASTS)),
        "scale": draw(st.sampled_from([1.0, 0.0, 2.0**-8, 2.0**8])),
        "spread": draw(st.sampled_from([1.0, 6.0])),
        "bounds": draw(st.sampled_from([(-30.0, 20.0), (-6.0, 2.0), (0.0, 0.0)])),
        "differentiate": tuple(name for name in names if draw(st.booleans())),
    }
    kinds = st.sampled_from((*BROADCASTS, None))
    if op == "gaussian_kl":
        del options["num_samples"]
    if op in ("sample_kl", "gaussian_kl"):
        options |= {"prior_mean": draw(kinds), "prior_logvar": draw(kinds)}
    else:
        options["logvar"] = draw(kinds)
    if op == "sample_kl":
        options |= {"noise": draw(st.sampled_from(["seed", "eps"])), "seed": draw(SEEDS),
                    "row_offset": draw(st.sampled_from([0, 1, 2**31, 2**40]))}  # fmt: skip
    if op == "negative_elbo":
        options |= {"reduction": draw(st.sampled_from(["mean", "sum", "none"])),
                    "beta": draw(st.sampled_from([0.0, 0.5, 1.0, 3.0]))}  # fmt: skip
    if dtype in HALVES and draw(st.booleans()):
        wide = {"x", "kl", "logvar"} & set(names)
        options["other_dtypes"] = tuple((name, torch.float32) for name in sorted(wide))
    return Case(op, shape, event_dims, dtype, **options)


def holds(case: Case, backend: Backend) -> None:
    if case.reduction == "mean" and 0 in case.batch_shape:
        return  # NaN, as the mean of no rows is: the oracle's as well, and no gradient
    check.check(case, backend.name, backend.device)


@given(case=any_case("sample_kl"))
def test_sample_kl(backend: Backend, case: Case) -> None:
    holds(case, backend)


@given(case=any_case("gaussian_kl"))
def test_gaussian_kl(backend: Backend, case: Case) -> None:
    holds(case, backend)


@given(case=any_case("gaussian_log_likelihood"))
def test_gaussian_log_likelihood(backend: Backend, case: Case) -> None:
    holds(case, backend)


@given(case=any_case("negative_elbo"))
def test_negative_elbo(backend: Backend, case: Case) -> None:
    holds(case, backend)


@given(
    shape=any_shape(),
    seed=SEEDS,
    row_offset=st.integers(0, 2**50),
    num_samples=st.one_of(st.none(), st.integers(1, 3)),
    dtype=st.sampled_from(FLOATS),
)
def test_noise(
    backend: Backend,
    shape: tuple[tuple[int, ...], int | None],
    seed: int,
    row_offset: int,
    num_samples: int | None,
    dtype: torch.dtype,
) -> None:
    sizes, event_dims = shape
    got = F.noise(sizes, seed=seed, row_offset=row_offset, num_samples=num_samples,
                  event_dims=event_dims, dtype=dtype, device=backend.device,
                  backend=backend.name)  # fmt: skip
    dims = len(sizes) - 1 if event_dims is None else event_dims
    want = oracle.noise(sizes, seed, dims, row_offset, num_samples)
    allowed = NOISE[arithmetic(dtype)] + (unit(dtype) * want.abs() if dtype in HALVES else 0)
    assert got.shape == want.shape
    assert bool(((got.cpu().double() - want).abs() <= allowed).all())
