"""Every op, on every backend, against the float64 oracle: values and gradients of each argument."""

from __future__ import annotations

import dataclasses
import itertools

import objective_cases
import packed_cases
import pytest
import torch
from cases import ARGUMENTS, BROADCASTS, FLOATS, HALVES, LAYOUTS, PRIORS, Case, priors
from check import check
from conftest import Backend

from vae_fast.autograd import halves

# The ops of the plain ELBO, whose options meet in products; `objective_cases` has the others.
ENCODER_OPS = ("sample_kl", "gaussian_kl")
DECODER_OPS = ("gaussian_log_likelihood", "negative_elbo")
OPS = ENCODER_OPS + DECODER_OPS


def shape_cases() -> list[Case]:
    shapes: dict[tuple[int, ...], tuple[int | None, ...]] = {
        (1,): (None, 0, 1),
        (7,): (None, 0, 1),
        (1, 1): (None,),
        (3, 1): (None,),
        (64, 32): (None,),
        (17, 33): (None, 0, 1, 2),
        (5, 3, 7): (None, 0, 1, 2, 3),
        (4, 3, 5, 2): (None, 1, 4),
        (2, 3, 2, 5, 3): (None, 2),
        (0, 5): (None, 0, 2),
        (5, 0): (None, 0, 2),
        (0, 0): (None,),
        (0,): (None, 1),
        (2, 0, 3): (None, 1),
    }
    # Around the widths of vectors and blocks, where the code for what is left begins.
    edges = (15, 16, 17, 31, 33, 64, 127, 255, 257, 1023, 1024, 1025, 2047, 2049)
    shapes |= {(2, width): (None,) for width in edges} | {(width, 2): (None,) for width in edges}
    return [
        Case(op, shape, event_dims, dtype, reduction="sum", **priors(op))
        for op in OPS
        for shape, choices in shapes.items()
        for event_dims in choices
        for dtype in (torch.float64, torch.float32)
    ]


def large_cases() -> list[Case]:
    shapes = ((1, 10**6 + 1), (1, 2**20 + 3), (5000, 3), (1001, 999))
    return [
        Case(op, shape, dtype=dtype)
        for op in OPS
        for shape in shapes
        for dtype in (torch.float32, torch.bfloat16)
    ]


def layout_cases() -> list[Case]:
    shapes = ((9, 21), (4, 3, 5, 7))
    return [
        Case(op, shape, dtype=dtype, layout=layout, **priors(op))
        for op in OPS
        for layout in LAYOUTS[1:]
        for shape in shapes
        for dtype in FLOATS
    ]


def dtype_cases() -> list[Case]:
    alike = [Case(op, (33, 65), dtype=dtype, **priors(op)) for op in OPS for dtype in FLOATS]
    wide = [
        Case(op, (33, 65), dtype=half, logvar=logvar, other_dtypes=tuple(others.items()))
        for half in HALVES
        for op, logvar, others in (
            ("sample_kl", "event", {"logvar": torch.float32}),
            ("sample_kl", "full", {"logvar": torch.float32}),
            ("gaussian_kl", "scalar", {"logvar": torch.float32}),
            ("gaussian_log_likelihood", "full", {"x": torch.float32}),
            ("gaussian_log_likelihood", "event", {"x": torch.float32, "logvar": torch.float32}),
            ("gaussian_log_likelihood", "scalar", {"logvar": torch.float32}),
            ("negative_elbo", "full", {"x": torch.float32}),
            ("negative_elbo", "scalar", {"x": torch.float32, "logvar": torch.float32}),
            ("negative_elbo", "row", {"logvar": torch.float32}),
            ("negative_elbo", "full", {"kl": half}),
        )
    ]
    odd = [
        Case("gaussian_log_likelihood", (9, 5), other_dtypes=(("x", torch.bfloat16),)),
        Case("negative_elbo", (9, 5), other_dtypes=(("logvar", torch.float16),)),
        Case(
            "gaussian_kl", (9, 5), dtype=torch.float16, other_dtypes=(("logvar", torch.bfloat16),)
        ),
        Case("sample_kl", (9, 5), dtype=torch.bfloat16, other_dtypes=(("logvar", torch.float16),)),
    ]
    mixed_priors = [
        Case(op, (9, 5), dtype=half, other_dtypes=(("prior_logvar", torch.float32),), **PRIORS)
        for op in ENCODER_OPS
        for half in HALVES
    ]
    return alike + wide + odd + mixed_priors


def broadcast_cases() -> list[Case]:
    kinds = (*BROADCASTS, None)
    decoder = [
        Case(op, shape, event_dims, dtype, logvar=kind, num_samples=samples)
        for op in DECODER_OPS
        for shape, event_dims in (((6, 5, 3, 4), None), ((4, 3, 11), 1))
        for kind in kinds
        for samples in (None, 3)
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
    ]
    encoder = [
        Case(op, (6, 5, 3), None, dtype, logvar=kind)
        for op in ENCODER_OPS
        for kind in ("rows", "event", "scalar", "row", "channel")
        for dtype in (torch.float64, torch.float16)
    ]
    degenerate = [
        Case(op, shape, logvar=kind, reduction="sum", **priors(op))
        for op in OPS
        for shape in ((1, 7), (7, 1), (1, 1), (3, 3), (0, 5), (5, 0))
        for kind in ("event", "scalar", "row", "channel")
    ]
    prior = [
        Case(op, (6, 5, 3), dtype=dtype, prior_mean=center, prior_logvar=spread)
        for op in ENCODER_OPS
        for center, spread in (
            ("full", None),
            (None, "full"),
            ("event", "event"),
            ("scalar", "scalar"),
            ("row", "channel"),
            ("event", None),
            (None, "scalar"),
        )
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
    ]
    return decoder + encoder + degenerate + prior


def argument_cases() -> list[Case]:
    samples = [
        Case("sample_kl", (7, 9), dtype=dtype, num_samples=count, noise=noise, row_offset=11)
        for dtype in FLOATS
        for count in (None, 1, 3)
        for noise in ("seed", "eps")
    ]
    decoder_samples = [
        Case(op, (7, 9), dtype=dtype, num_samples=count)
        for op in DECODER_OPS
        for dtype in FLOATS
        for count in (1, 3)
    ]
    losses = [
        Case(
            "negative_elbo", (7, 9), dtype=dtype, reduction=reduction, beta=beta, num_samples=count
        )
        for dtype in FLOATS
        for reduction in ("mean", "sum", "none")
        for beta in (0.0, 1.0, 0.25, 4.0)
        for count in (None, 2)
    ]
    bounds = [
        Case(op, (7, 64), dtype=dtype, bounds=limits, spread=spread, **priors(op))
        for op in OPS
        for dtype in FLOATS
        for limits, spread in (((-30.0, 20.0), 40.0), ((-6.0, 0.5), 3.0), ((-1.0, -1.0), 1.0))
    ]
    extreme = [
        Case(op, (7, 64), dtype=dtype, bounds=(-80.0, 80.0), spread=40.0)
        for op in ENCODER_OPS
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
    ]
    without_prior_logvar = [
        Case(op, (7, 64), dtype=dtype, bounds=(0.5, 2.0), prior_mean="full")
        for op in ENCODER_OPS
        for dtype in FLOATS
    ]
    return samples + decoder_samples + losses + bounds + extreme + without_prior_logvar


def subset_cases() -> list[Case]:
    subsets = [
        Case(
            op,
            (5, 9),
            differentiate=subset,
            prior_logvar="event" if priors(op) else None,
            prior_mean="full" if priors(op) else None,
            dtype=dtype,
            logvar="event",
        )
        for op in OPS
        for size in range(len(ARGUMENTS[op]))
        for subset in itertools.combinations(ARGUMENTS[op], size)
        for dtype in (torch.float32, torch.float16)
    ]
    outputs = [
        Case("sample_kl", (5, 9), upstream=(name,), num_samples=count, **PRIORS)
        for name in ("z", "kl")
        for count in (None, 2)
    ]
    return subsets + outputs


def scale_cases() -> list[Case]:
    return [
        Case(op, (512, 65), dtype=dtype, scale=scale)
        for op in OPS
        for dtype in (torch.float32, torch.float16, torch.bfloat16)
        for scale in (0.0, 2.0**-10, 2.0**10)
    ]


def with_one_pass(cases: list[Case]) -> list[Case]:
    """Every loss once more with gradients of all but x: those, one trip over memory makes."""
    learned = ("mean", "logvar", "kl")
    losses = [c for c in cases if c.op == "negative_elbo" and c.differentiate is None]
    return cases + [dataclasses.replace(case, differentiate=learned) for case in losses]


CASES = {
    "shape": with_one_pass(shape_cases()),
    "layout": with_one_pass(layout_cases()),
    "dtype": with_one_pass(dtype_cases()),
    "broadcast": with_one_pass(broadcast_cases()),
    "argument": with_one_pass(argument_cases()),
    "subset": subset_cases(),
    "scale": with_one_pass(scale_cases()),
    "large": with_one_pass(large_cases()),
    **objective_cases.CASES,
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{kind}-{case.op}-{case}") for kind in CASES for case in CASES[kind]],
)
def test_matches_the_oracle(case: Case, backend: Backend) -> None:
    check(case, backend.name, backend.device)


@pytest.mark.parametrize("case", packed_cases.SIDE_BY_SIDE, ids=lambda case: f"{case.op}-{case}")
def test_halves_of_a_tensor_have_the_halves_of_one_as_gradients(
    case: Case, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves, "SMALLEST", 0)
    gradients = check(case, backend.name, backend.device).gradients
    if backend.name != "reference":
        assert packed_cases.are_halves(gradients["mean"], gradients["logvar"])


@pytest.mark.parametrize("case", packed_cases.ALONE_CASES, ids=lambda case: f"{case.op}-{case}")
def test_the_gradient_of_one_half(
    case: Case, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves, "SMALLEST", 0)
    gradients = check(case, backend.name, backend.device).gradients
    assert all(gradient.is_contiguous() for gradient in gradients.values())
