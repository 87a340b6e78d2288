"""Any shape, strides, dtypes and arguments that the contract allows, drawn by hypothesis."""

from __future__ import annotations

import check
import oracle
import pytest
import torch
from cases import (
    ARGUMENTS,
    BROADCASTS,
    DECODER_OPS,
    FLOATS,
    HALVES,
    LAYOUTS,
    Case,
    priors,
    tensors,
)
from conftest import Backend
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ops.gaussian_kl import is_near_the_floor
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
    if priors(op):
        options |= {"prior_mean": draw(kinds), "prior_logvar": draw(kinds)}
    elif op in DECODER_OPS:
        options["logvar"] = draw(kinds)
    if op in ("sample_kl", "gaussian_kl"):
        options |= {"free_bits": draw(st.sampled_from([None, None, 0.2, 1.5])),
                    "balance": draw(st.sampled_from([None, None, 0.0, 0.8])),
                    "return_dims": draw(st.booleans())}  # fmt: skip
    if op in ("sample_kl", "sample_log_weights", "score_function"):
        options |= {"noise": draw(st.sampled_from(["seed", "eps"])), "seed": draw(SEEDS),
                    "row_offset": draw(st.sampled_from([0, 1, 2**31, 2**40]))}  # fmt: skip
    if op == "sample_log_weights":
        options["estimator"] = draw(st.sampled_from(["reparameterization", "stl", "dreg"]))
        if options["noise"] == "seed":
            options["sample_offset"] = draw(st.sampled_from([0, 5, 2**32 - 3]))
    if op == "importance_weighted_elbo":
        options |= {"num_samples": draw(st.integers(1, 9)), "impossible": draw(st.booleans()),
                    "level": draw(st.sampled_from([0.0, 1e4, -1e4]))}  # fmt: skip
    if op == "score_function":
        options["baseline"] = draw(st.sampled_from([None, "full", "rows", "scalar"]))
    if op == "negative_elbo":
        options |= {"reduction": draw(st.sampled_from(["mean", "sum", "none"])),
                    "beta": draw(st.sampled_from([0.0, 0.5, 1.0, 3.0]))}  # fmt: skip
    if dtype in HALVES and draw(st.booleans()):
        wide = {"x", "kl", "logvar", "signal"} & set(names)
        options["other_dtypes"] = tuple((name, torch.float32) for name in sorted(wide))
    return Case(op, shape, event_dims, dtype, **options)


def holds(case: Case, backend: Backend) -> None:
    if case.reduction == "mean" and 0 in case.batch_shape:
        return  # NaN, as the mean of no rows is: the oracle's as well, and no gradient
    if case.free_bits is not None:
        given = {n: t if t is None else t.detach().double() for n, t in tensors(case).items()}
        assume(not is_near_the_floor(case, given))
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


@pytest.mark.parametrize(
    "op", ["squared_error", "sample_log_weights", "importance_weighted_elbo", "score_function"]
)
@given(data=st.data())
@settings(max_examples=min(30, settings.default.max_examples))
def test_the_other_ops(backend: Backend, op: str, data: st.DataObject) -> None:
    holds(data.draw(any_case(op)), backend)


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
