"""Parity cases of the ops and options beside the plain ELBO.

Each dtype, layout, broadcast, prior and estimator meets the others somewhere; products of them all,
as in ``test_parity.py`` for the ops that came first, would take the interpreter too long.
"""

from __future__ import annotations

from cases import FLOATS, HALVES, LAYOUTS, PRIORS, Case

ESTIMATORS = ("reparameterization", "stl", "dreg")
F64, F32, F16, BF16 = FLOATS


def control_cases() -> list[Case]:
    """Free bits, balance and the sums over the batch, of both ops that have them."""
    floors = [
        Case(op, (17, 33), dtype=dtype, free_bits=floor, **PRIORS)
        for op in ("sample_kl", "gaussian_kl")
        for dtype in FLOATS
        for floor in (0.1, 0.7)
    ]
    balances = [
        Case(op, (9, 21), dtype=dtype, balance=balance, free_bits=floor, **PRIORS)
        for op in ("sample_kl", "gaussian_kl")
        for dtype, balance, floor in (
            (F64, 0.8, None),
            (F32, 0.0, None),
            (F32, 1.0, 0.2),
            (BF16, 0.3, 0.3),
        )
    ]
    dims = [
        Case("sample_kl", shape, event_dims, dtype, return_dims=True, free_bits=floor, **PRIORS)
        for shape, event_dims, dtype, floor in (
            ((5, 3, 7), None, F64, None),
            ((5, 3, 7), 0, F32, None),
            ((5, 3, 7), 1, F16, 0.15),
            ((5, 3, 7), 3, F32, 0.15),
            ((64, 32), None, F32, 0.25),
            ((1025, 2), None, BF16, None),
            ((2, 1025), None, F32, None),
            ((5000, 3), None, F32, None),
            ((2, 3, 2, 5, 3), 2, F64, None),
            ((0, 5), None, F32, None),
            ((5, 0), None, F32, 0.25),
        )
    ]  # fmt: skip
    shared = [
        Case("sample_kl", (6, 5, 3), dtype=dtype, logvar=logvar, prior_mean=center,
             prior_logvar=spread, free_bits=0.3, balance=0.8, return_dims=True, num_samples=samples)
        for dtype, logvar, center, spread, samples in (
            (F64, "event", None, None, 3),
            (F32, "scalar", "event", None, None),
            (F32, "row", None, "scalar", 1),
            (BF16, "channel", "row", "event", 2),
            (F16, "full", "scalar", "channel", None),
        )
    ]  # fmt: skip
    layouts = [
        Case("sample_kl", (4, 3, 5, 7), layout=layout, free_bits=0.3, balance=0.6, return_dims=True,
             **PRIORS)
        for layout in LAYOUTS[1:]
    ]  # fmt: skip
    subsets = [
        Case("sample_kl", (5, 9), return_dims=True, free_bits=0.3, balance=0.8, logvar="event",
             differentiate=differentiate, upstream=upstream, **PRIORS)
        for differentiate, upstream in (
            (None, ("kl_dims",)),
            (None, ("z", "kl_dims")),
            (None, ("z",)),
            (("mean",), ("kl", "kl_dims")),
            (("logvar",), None),
            (("prior_mean",), None),
            (("prior_logvar",), ("kl_dims",)),
            ((), None),
        )
    ]  # fmt: skip
    clamped = [
        Case(op, (7, 64), dtype=dtype, bounds=(-6.0, 0.5), spread=3.0, free_bits=0.4, balance=0.5,
             **PRIORS)
        for op in ("sample_kl", "gaussian_kl")
        for dtype in (F32, F16)
    ]  # fmt: skip
    scaled = [
        Case("sample_kl", (64, 65), scale=scale, return_dims=True) for scale in (0.0, 2.0**10)
    ]
    return floors + balances + dims + shared + layouts + subsets + clamped + scaled


def log_weight_cases() -> list[Case]:
    op = "sample_log_weights"
    shapes = [
        Case(op, shape, dtype=dtype, estimator=estimator, num_samples=samples, **PRIORS)
        for shape, dtype, samples in (
            ((7, 9), F64, 3),
            ((2, 1025), F32, None),
            ((1025, 2), BF16, 2),
            ((3, 5003), F32, 2),
            ((0, 5), F32, 2),
            ((5, 0), F32, 3),
        )
        for estimator in ESTIMATORS
    ]
    dtypes = [
        Case(op, (17, 33), dtype=dtype, estimator=estimator, num_samples=samples, noise=noise,
             row_offset=11, sample_offset=0 if noise == "eps" else 5)
        for dtype in FLOATS
        for estimator, samples, noise in (
            ("reparameterization", None, "eps"),
            ("reparameterization", 3, "seed"),
            ("stl", None, "seed"),
            ("stl", 1, "eps"),
            ("dreg", 3, "seed"),
            ("dreg", 3, "eps"),
        )
    ]  # fmt: skip
    broadcasts = [
        Case(op, (6, 5, 3), event_dims, dtype, logvar=logvar, prior_mean=center,
             prior_logvar=spread, estimator=estimator, num_samples=samples)
        for event_dims, dtype, logvar, center, spread, estimator, samples in (
            (None, F64, "event", "full", None, "reparameterization", 2),
            (None, F32, "scalar", None, "full", "stl", 2),
            (None, BF16, "row", "event", "event", "dreg", 3),
            (None, F32, "channel", "scalar", "scalar", "dreg", 2),
            (1, F16, "full", "row", "channel", "stl", None),
            (0, F32, "event", "row", None, "dreg", 3),
            (3, F32, "full", None, "scalar", "reparameterization", 3),
            (1, F64, "row", "channel", "row", "dreg", 3),
        )
    ]  # fmt: skip
    layouts = [
        Case(op, (4, 3, 5, 7), dtype=F32 if at % 2 else F16, layout=layout, num_samples=2,
             estimator=ESTIMATORS[at % 3], noise="eps" if at % 2 else "seed", **PRIORS)
        for at, layout in enumerate(LAYOUTS[1:])
    ]  # fmt: skip
    subsets = [
        Case(op, (5, 9), num_samples=3, estimator=estimator, differentiate=differentiate,
             upstream=upstream, logvar="event", **PRIORS)
        for estimator, differentiate, upstream in (
            ("reparameterization", None, ("z",)),
            ("reparameterization", None, ("log_ratio",)),
            ("stl", None, ("z",)),
            ("stl", None, ("log_ratio",)),
            ("dreg", None, ("z",)),
            ("dreg", None, ("log_ratio",)),
            ("reparameterization", ("logvar",), None),
            ("stl", ("logvar", "prior_logvar"), None),
            ("dreg", ("mean",), None),
            ("dreg", ("prior_mean",), None),
            ("stl", ("prior_logvar",), ("z",)),
            ("dreg", (), None),
        )
    ]  # fmt: skip
    clamped = [
        Case(op, (7, 64), dtype=dtype, bounds=bounds, spread=spread, num_samples=2,
             estimator=estimator, **PRIORS)
        for dtype, bounds, spread, estimator in (
            (F64, (-30.0, 20.0), 40.0, "stl"),
            (F32, (-6.0, 0.5), 3.0, "reparameterization"),
            (F32, (-6.0, 0.5), 3.0, "dreg"),
            (BF16, (-1.0, -1.0), 1.0, "stl"),
            (F32, (-30.0, 20.0), 40.0, "reparameterization"),
        )
    ]  # fmt: skip
    scaled = [
        Case(op, (64, 65), dtype=dtype, scale=scale, num_samples=2, estimator=estimator)
        for dtype, scale, estimator in (
            (F32, 0.0, "dreg"),
            (F16, 2.0**10, "stl"),
            (BF16, 2.0**-10, "dreg"),
        )
    ]
    mixed = [
        Case(op, (33, 65), dtype=half, logvar="event", num_samples=2, estimator="dreg",
             other_dtypes=(("logvar", F32), ("prior_mean", F32)), prior_mean="event")
        for half in HALVES
    ]  # fmt: skip
    long = [Case(op, (1, 10**5 + 1)), Case(op, (5000, 3), num_samples=2, estimator="stl")]
    return shapes + dtypes + broadcasts + layouts + subsets + clamped + scaled + mixed + long


def importance_cases() -> list[Case]:
    op = "importance_weighted_elbo"
    counts = [
        Case(op, (67,), num_samples=count, dtype=dtype)
        for count in (1, 2, 5, 50)
        for dtype in (FLOATS if count > 1 else (F32, BF16))
    ]
    levels = [
        Case(op, (67,), num_samples=count, dtype=dtype, level=level, spread=spread)
        for count, dtype, level, spread in (
            (5, F64, 1e4, 1.0),
            (5, F32, 1e4, 1.0),
            (5, F32, -1e4, 1.0),
            (5, F32, 0.0, 1e4),
            (50, F64, -1e4, 1e3),
            (50, F32, -1e4, 30.0),
            (5, F16, 1e4, 10.0),
            (5, BF16, -1e4, 100.0),
            (1, F32, 1e4, 1.0),
        )
    ]
    impossible = [
        Case(op, (67,), num_samples=count, dtype=dtype, impossible=True)
        for count, dtype in ((1, F32), (2, F32), (5, F64), (5, BF16), (50, F32))
    ]
    shapes = [
        Case(op, shape, num_samples=count)
        for shape, count in (
            ((), 7), ((1,), 50), ((4, 5, 3), 3), ((2, 2049), 2), ((3,), 5003), ((20_011,), 2),
            ((0,), 3), ((5, 0), 1), ((1,), 10**5 + 1),
        )
    ]  # fmt: skip
    layouts = [
        Case(
            op,
            (3, 5, 7),
            num_samples=4,
            dtype=dtype,
            layout=layout,
            impossible=layout != "expanded",
        )
        for layout in LAYOUTS[1:]
        for dtype in (F32, F16)
    ]
    rest = [
        Case(op, (33,), num_samples=5, differentiate=()),
        Case(op, (33,), num_samples=5, scale=0.0),
        Case(op, (33,), num_samples=5, dtype=F16, scale=2.0**10),
    ]
    return counts + levels + impossible + shapes + layouts + rest


def score_cases() -> list[Case]:
    op = "score_function"
    dtypes = [
        Case(
            op,
            (17, 33),
            dtype=dtype,
            num_samples=samples,
            baseline=baseline,
            noise=noise,
            row_offset=3,
        )
        for dtype in FLOATS
        for samples, baseline, noise in (
            (None, "rows", "seed"),
            (3, None, "eps"),
            (3, "full", "seed"),
        )
    ]
    shapes = [
        Case(op, shape, num_samples=samples, baseline="scalar")
        for shape, samples in (
            ((2, 1025), 2),
            ((1025, 2), None),
            ((3, 5003), 2),
            ((0, 5), 3),
            ((5, 0), 2),
        )
    ]
    broadcasts = [
        Case(
            op, (6, 5, 3), event_dims, dtype, logvar=logvar, num_samples=samples, baseline=baseline
        )
        for event_dims, dtype, logvar, samples, baseline in (
            (None, F64, "event", 3, "rows"),
            (None, F32, "scalar", 3, "full"),
            (None, BF16, "row", None, "scalar"),
            (1, F32, "channel", 2, None),
            (0, F32, "event", None, "full"),
            (3, F16, "scalar", 2, "scalar"),
        )
    ]
    layouts = [
        Case(op, (4, 3, 5, 7), dtype=F32 if at % 2 else BF16, layout=layout, num_samples=2,
             baseline="full", noise="eps" if at % 2 else "seed")
        for at, layout in enumerate(LAYOUTS[1:])
    ]  # fmt: skip
    rest = [
        *(Case(op, (17, 33), dtype=half, baseline="full", num_samples=2,
               other_dtypes=(("signal", half),)) for half in HALVES),
        *(Case(op, (5, 9), num_samples=2, differentiate=names)
          for names in ((), ("signal",), ("mean",), ("logvar",))),
        Case(op, (7, 64), bounds=(-6.0, 0.5), spread=3.0, num_samples=2),
        Case(op, (7, 64), dtype=F64, spread=40.0),
        *(Case(op, (7, 64), dtype=dtype, other_dtypes=(("logvar", other),))
          for dtype, other in ((F64, F32), (F64, BF16), (F32, F64), (BF16, F32))),
        Case(op, (64, 65), scale=0.0),
        Case(op, (64, 65), dtype=F16, scale=2.0**10),
    ]  # fmt: skip
    return dtypes + shapes + broadcasts + layouts + rest


def squared_error_cases() -> list[Case]:
    op = "squared_error"
    dtypes = [
        Case(op, (17, 33), dtype=dtype, num_samples=samples)
        for dtype in FLOATS
        for samples in (None, 3)
    ]
    shapes = [
        Case(op, shape, event_dims, num_samples=samples)
        for shape, event_dims, samples in (
            ((5, 3, 7), 0, 2), ((5, 3, 7), 1, None), ((5, 3, 7), 3, 2), ((7,), None, None),
            ((2, 1025), None, 1), ((1025, 2), None, 2), ((3, 5003), None, None),
            ((0, 5), None, 2), ((5, 0), None, None), ((1, 10**5 + 1), None, None),
        )
    ]  # fmt: skip
    layouts = [
        Case(
            op,
            (4, 3, 5, 7),
            dtype=F32 if at % 2 else F16,
            layout=layout,
            num_samples=2 if at % 2 else None,
        )
        for at, layout in enumerate(LAYOUTS[1:])
    ]
    rest = [
        *(
            Case(op, (17, 33), dtype=half, other_dtypes=(("x", F32),), num_samples=2)
            for half in HALVES
        ),
        Case(op, (9, 5), other_dtypes=(("x", BF16),)),
        *(
            Case(op, (5, 9), num_samples=2, differentiate=names)
            for names in ((), ("x",), ("mean",))
        ),
        Case(op, (64, 65), scale=0.0),
        Case(op, (64, 65), dtype=F16, scale=2.0**10),
    ]
    return dtypes + shapes + layouts + rest


CASES = {
    "control": control_cases(),
    "log_weights": log_weight_cases(),
    "importance": importance_cases(),
    "score": score_cases(),
    "squared_error": squared_error_cases(),
}
