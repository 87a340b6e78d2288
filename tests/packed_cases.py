"""Parity cases whose mean and log-variance are the halves of one tensor, as networks return them.

Their gradients are made as the halves of one new tensor, whose rows lie as far apart.
"""

from __future__ import annotations

import dataclasses

import torch
from cases import ARGUMENTS, FLOATS, Case, priors

OPS = tuple(op for op, names in ARGUMENTS.items() if "logvar" in names)
DECODER_OPS = ("gaussian_log_likelihood", "negative_elbo")
F64, F32, F16, BF16 = FLOATS

# Rows a tile has several of, one of, and a part of; and rows that end between two vectors.
SHAPES: dict[tuple[int, ...], tuple[int | None, ...]] = {
    (7, 1): (None,),
    (17, 33): (None,),
    (130, 20): (None,),
    (5, 3, 7): (None, 1),
    (4, 3, 5, 2): (None, 2),
    (2, 4, 1, 1): (None,),
    (3, 600): (None,),
    (3, 1024): (None,),
    (2, 2049): (None,),
    (40, 128): (None,),
}
SHAPE_CASES = [
    Case(op, shape, event_dims, dtype, packed=True)
    for op in OPS
    for shape, choices in SHAPES.items()
    for event_dims in choices
    for dtype in (F32, BF16)
]
OPTION_CASES = [
    *(Case(op, (33, 12), dtype=dtype, packed=True, **priors(op)) for op in OPS for dtype in FLOATS),
    *(
        Case(op, (6, 5, 4), 1, dtype, packed=True, num_samples=3)
        for op in OPS
        for dtype in (F64, F32, BF16)
    ),
    *(
        Case(op, (9, 24), packed=True, prior_mean=center, prior_logvar=spread)
        for op in OPS
        if priors(op)
        for center, spread in (("event", "event"), ("scalar", None), (None, "row"))
    ),
    *(Case("sample_kl", (5, 9), packed=True, upstream=(name,)) for name in ("z", "kl")),
    Case("sample_kl", (9, 20), packed=True, noise="eps", return_dims=True, free_bits=0.2),
    *(
        Case("negative_elbo", (9, 20), dtype=dtype, packed=True, reduction=reduction, scale=3.0)
        for reduction in ("mean", "sum", "none")
        for dtype in (F32, F16)
    ),
    *(
        Case("sample_log_weights", (6, 20), packed=True, num_samples=2, estimator=estimator)
        for estimator in ("stl", "dreg")
    ),
    *(Case(op, (9, 8), packed=True, other_dtypes=(("x", BF16),)) for op in DECODER_OPS),
]
# One gradient alone is not written as a half.
ALONE_CASES = [
    Case(op, (9, 8), packed=True, differentiate=(name,))
    for op in OPS
    for name in ("mean", "logvar")
]


def with_one_pass(cases: list[Case]) -> list[Case]:
    """Every loss once more without a gradient of x, whose gradients the forward pass makes."""
    losses = [case for case in cases if case.op == "negative_elbo" and case.differentiate is None]
    learned = ("mean", "logvar", "kl")
    return cases + [dataclasses.replace(case, differentiate=learned) for case in losses]


SIDE_BY_SIDE = with_one_pass(SHAPE_CASES + OPTION_CASES)


def are_halves(mean: torch.Tensor, logvar: torch.Tensor) -> bool:
    """Whether the two share memory."""
    return mean.untyped_storage().data_ptr() == logvar.untyped_storage().data_ptr()
