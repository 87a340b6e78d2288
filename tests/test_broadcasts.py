"""Arguments of every shape that broadcasts: values and gradients, one by one and together.

``cpu`` runs the whole enumeration of ``broadcast_cases``. Backends whose calls take milliseconds
run a call of each kind. So does ``reference``, which leaves reductions to autograd, and beside
those it runs the calls of up to two dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import broadcast_cases as cases
import cuda_host
import pytest
import torch
from broadcast_cases import OPS, Call, Frame
from broadcast_run import compare
from conftest import BACKENDS, INTERPRETED, Backend, add_backend

import vae_fast.functional as F

__all__ = ("Call", "Frame", "replay")

# How many calls there are of each op. One argument broadcast, in frames of 1 to 4 dimensions:
ONE = {
    "sample_kl": (1287, 13274, 58556, 20805),
    "gaussian_kl": (601, 6487, 51138, 20805),
    "sample_log_weights": (1975, 19509, 61738, 20805),
    "score_function": (622, 4985, 24636, 12677),
    "gaussian_log_likelihood": (173, 2770, 22162, 12969),
    "squared_error": (69, 990, 7686, 729),
    "negative_elbo": (923, 12600, 41532, 12969),
    "importance_weighted_elbo": (11, 73, 419, 81),
}
# Two at once in frames of 1 to 3 dimensions, three in frames of 1 and 2:
TWO = dict.fromkeys(("sample_kl", "gaussian_kl", "sample_log_weights"), (54, 1782, 30996))
TWO |= {"score_function": (37, 740, 9766)}
THREE = dict.fromkeys(("sample_kl", "gaussian_kl", "sample_log_weights"), (34, 3162))
# A size of 0 in frames of 1 to 2 dimensions; one of each kind, with all gradients and in all; and
# those of up to two dimensions with all gradients:
EMPTY = {
    "sample_kl": 1039,
    "gaussian_kl": 369,
    "sample_log_weights": 1359,
    "score_function": 808,
    "gaussian_log_likelihood": 355,
    "squared_error": 256,
    "negative_elbo": 608,
    "importance_weighted_elbo": 16,
}
KINDS = {
    "sample_kl": (667, 1158),
    "gaussian_kl": (322, 627),
    "sample_log_weights": (899, 1576),
    "score_function": (308, 516),
    "gaussian_log_likelihood": (377, 723),
    "squared_error": (215, 399),
    "negative_elbo": (653, 1249),
    "importance_weighted_elbo": (14, 14),
}
SMALL = {
    "sample_kl": 1731,
    "gaussian_kl": 613,
    "sample_log_weights": 2299,
    "score_function": 1368,
    "gaussian_log_likelihood": 746,
    "squared_error": 536,
    "negative_elbo": 1283,
    "importance_weighted_elbo": 72,
}


def counted(table: dict[str, tuple[int, ...]]) -> list[tuple[str, int, int]]:
    return [(op, dims, count) for op in table for dims, count in enumerate(table[op], start=1)]


def once(calls: Iterator[list[Call]]) -> Iterator[list[Call]]:
    """With all gradients alone."""
    return (each[:1] for each in calls)


def replay(call: Call, name: str) -> None:
    """Makes one call again, as a message names it."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # new memory is NaN
    with pytest.MonkeyPatch.context() as monkeypatch:
        if name == cuda_host.NAME:
            add_backend(monkeypatch, name, cuda_host.backend())
        compare([[call]], name, next(each.device for each in BACKENDS if each.name == name))


def test_each_shape_is_there() -> None:
    """As many as combinatorics say, and those that torch broadcasts."""
    for dims in (1, 2, 3, 4):
        found = {
            full: set(cases.broadcastable(full))
            for full in itertools.product(cases.SIZES, repeat=dims)
        }
        # A dimension of size 1, 2 or 3 has 1, 2 and 2 sizes that broadcast to it.
        assert sum(map(len, found.values())) == sum(5**k * 3 ** (dims - k) for k in range(dims + 1))
        for full, shapes in found.items():
            assert all(torch.broadcast_shapes(shape, full) == full for shape in shapes)


@pytest.mark.parametrize(("op", "dims", "count"), counted(ONE))
def test_one_argument(op: str, dims: int, count: int, compiled_backend: Backend) -> None:
    assert compare(cases.one_by_one(op, dims), compiled_backend.name) == count


@pytest.mark.parametrize(("op", "dims", "count"), counted(TWO))
def test_two_arguments(op: str, dims: int, count: int, compiled_backend: Backend) -> None:
    assert compare(cases.together(op, dims, 2), compiled_backend.name) == count


@pytest.mark.parametrize(("op", "dims", "count"), counted(THREE))
def test_three_arguments(op: str, dims: int, count: int, compiled_backend: Backend) -> None:
    assert compare(cases.together(op, dims, 3), compiled_backend.name) == count


@pytest.mark.parametrize("op", OPS)
def test_nothing_to_sum(op: str, compiled_backend: Backend) -> None:
    calls = (
        each
        for dims in (1, 2)
        for each in once(cases.one_by_one(op, dims, (0, 1, 2)))
        if 0 in each[0].frame.shape
    )
    assert compare(calls, compiled_backend.name) == EMPTY[op]


def test_a_loss_of_no_samples_is_refused(backend: Backend) -> None:
    """The mean over them would be of nothing."""
    mean, x = torch.zeros(0, 3, 2, device=backend.device), torch.zeros(3, 2, device=backend.device)
    with pytest.raises(ValueError, match=r"mean must have at least one sample.*\(0, 3, 2\)"):
        F.negative_elbo(x, mean, None, x.sum(1), backend=backend.name)


@pytest.mark.parametrize("op", OPS)
def test_one_of_each_kind(op: str, backend: Backend) -> None:
    slow = backend.name == "triton" and INTERPRETED
    calls = cases.one_of_each_kind(op)
    made = compare(once(calls) if slow else calls, backend.name, backend.device)
    assert made == KINDS[op][0 if slow else 1]


@pytest.mark.parametrize("op", OPS)
def test_small_frames_on_the_reference(op: str) -> None:
    calls = (each for dims in (1, 2) for each in once(cases.one_by_one(op, dims)))
    assert compare(calls, "reference") == SMALL[op]
