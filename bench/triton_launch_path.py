"""What a call of the Triton backend does before its launch: ``python -m bench.triton_launch_path``.

Needs no GPU: Triton's own Python runs, over a driver whose launches run nothing, which leaves out
what Triton's launcher in C and CUDA itself take. "Anew" is what the first call of its kind takes,
its kernels compiled; "again" a call like one before. It writes to ``docs/performance/method.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import harness, report, tables
from bench.triton_calls import Call, Driver, calls_of
from bench.triton_variants import Variant

SHAPES = {"sample_kl": (128, 20), "gaussian_kl": (128, 20), "negative_elbo": (128, 784)}
SECONDS = 2.0
TARGET = "sm_90"
SEED = 1


def _with_a_number(call: Call) -> Call:
    """With a seed as the host draws it, where it has one."""
    return call._replace(
        arguments=tuple(
            SEED if isinstance(value, Tensor) and value.dtype is torch.int64 else value
            for value in call.arguments
        )
    )


def measure() -> list[tuple[str, harness.Comparison]]:
    from vae_fast.kernels import replay

    rows = []
    for op, shape in SHAPES.items():
        made = {call.name: call for call in reversed(calls_of([Variant(op, shape)]))}
        own = [call for name, call in made.items() if name.startswith(op)]
        for call in map(_with_a_number, reversed(own)):
            again = lambda _, call=call: call.op(*call.arguments)  # noqa: E731
            blocks = {"anew": _within(replay.disabled, again), "again": harness.timed(again)}
            label = f"`{call.name}` {'x'.join(map(str, shape))}"
            rows.append((label, harness.interleave(blocks, SECONDS)))
    return rows


def _within(context: Callable[[], Any], step: Callable[[int], object]) -> harness.Block:
    """A block of calls in a context, which is not timed."""
    block = harness.timed(step)

    def inside(calls: int) -> float:
        with context():
            return block(calls)

    return inside


def main() -> None:
    Driver(TARGET).activate()
    with harness.threads(1):
        rows = [
            (name, *(tables.show_time(took.seconds(how).middle) for how in ("anew", "again")))
            for name, took in measure()
        ]
        report.put_of_one_core("triton-launch-path", tables.table(("call", "anew", "again"), rows))


if __name__ == "__main__":
    main()
