"""A Triton call that is replayed launches what it launched when it was recorded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from cases import Case
from check import check
from conftest import GPUS, INTERPRETED
from test_triton import EVERY, kernels
from test_triton_kernels import without_interpreter

pytest.importorskip("triton")


def test_replayed_launches_are_those_of_a_recorded_call() -> None:
    """On other tensors, with another seed and beta; and without a way through Triton."""
    done = without_interpreter("-m", "tests.replayed_launches")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["op"] for line in lines} >= {"sample_kl_backward", "noise", "scale_"}
    for line in lines:
        assert line["launches"] >= 1
        assert line["alike"], line
        assert line["through Triton"] == 0, line


@pytest.mark.skipif(INTERPRETED or not GPUS, reason="nothing is replayed in the interpreter")
@pytest.mark.parametrize("case", EVERY, ids=lambda case: f"{case.op}-{case}")
def test_a_replayed_call_is_right(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """triton: the third call of a shape, on values of its own, which goes past the launcher."""
    for seed in (3, 2**63 + 1):
        check(replace(case, seed=seed), "triton", GPUS[0])
    with monkeypatch.context() as patched:
        for name in ("launch", "scale", "importance_weighted_elbo"):
            patched.setattr(kernels(name), "launch", None)
        check(replace(case, seed=2**31), "triton", GPUS[0])


@pytest.mark.skipif(INTERPRETED or not GPUS, reason="nothing is replayed in the interpreter")
def test_what_is_replayed_is_of_the_layout() -> None:
    """triton: one shape in every layout, dtype and alignment, again and again."""
    for _ in range(2):
        for op in ("sample_kl", "negative_elbo", "gaussian_kl"):
            for layout in ("contiguous", "transposed", "sliced", "offset", "expanded", "negated"):
                for dtype in (torch.float32, torch.bfloat16):
                    check(Case(op, (6, 20), layout=layout, dtype=dtype), "triton", GPUS[0])


def test_the_way_to_a_launch_is_timed() -> None:
    code = (
        "from bench import triton_launch_path as path\n"
        "path.SECONDS = 0.01\n"
        "path.Driver(path.TARGET).activate()\n"
        "print(*(name for name, took in path.measure() if len(took.rounds) == 2), sep=',')\n"
    )
    done = without_interpreter("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().split(",") == [
        "`sample_kl_forward` 128x20",
        "`sample_kl_backward` 128x20",
        "`gaussian_kl_forward` 128x20",
        "`gaussian_kl_backward` 128x20",
        "`negative_elbo_forward` 128x784",
    ]
