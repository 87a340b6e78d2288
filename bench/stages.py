"""Where the time of ``sample_kl`` at its smallest size goes: ``python -m bench.stages``.

Forward and backward on one thread, on the ``cpu`` backend; each row does what the one before does
and something more. Writes the table of ``docs/performance.md``.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bench import floor, harness, peers, report, tables
from bench.device import Setting
from bench.ops import OPS, run_backward
from bench.workload import Workload
from vae_fast import _seed
from vae_fast._backends import cpu
from vae_fast._control import NO_CONTROL
from vae_fast.autograd import apply_of
from vae_fast.autograd.sample_kl import SampleKL

SECONDS = 4.0
_apply = apply_of(SampleKL)


def _without_kernels(z: Tensor, kl: Tensor) -> ModuleType:
    """A backend that makes the results and computes none."""
    backend: Any = ModuleType("nothing")
    backend.sample_kl_forward = lambda *_: (torch.empty_like(z), torch.empty_like(kl), None)
    backend.sample_kl_backward = lambda *_: (torch.empty_like(z), torch.empty_like(z), None, None)
    return backend


def measure(seconds: float) -> harness.Comparison:
    work = Workload(OPS["sample_kl"], OPS["sample_kl"].sizes[0], Setting(), (peers.OURS,))
    work.add_empty()
    z, kl = (t.detach() for t in work.functions[peers.OURS](*work.copies[0].arguments))

    def function(mean: Tensor, logvar: Tensor, seed: int | Tensor, backend: ModuleType) -> Any:
        options = (seed, None, 1, 0, (-30.0, 20.0), NO_CONTROL)
        return _apply(mean, logvar, None, None, None, options, False, backend)[:2]

    nothing = _without_kernels(z, kl)
    calls = {
        "an empty Function": work.functions[floor.EMPTY],
        "the op's Function, without its kernels": lambda m, v: function(m, v, 1, nothing),
        "its kernels, and the way into them": lambda m, v: function(m, v, 1, cpu),
        "drawing a seed": lambda m, v: function(m, v, _seed.draw(m.device, None), cpu),
        "the checks of the arguments and the choice of a backend": work.functions[peers.OURS],
    }

    def block(call: Any) -> harness.Block:
        def step(number: int) -> None:
            inputs = work.upstreams[peers.OURS][number % len(work.copies)]
            inputs.clear()
            run_backward(inputs, call(*inputs.arguments))

        return harness.timed(step, work.wait)

    return harness.interleave({name: block(call) for name, call in calls.items()}, seconds)


def main() -> None:
    with harness.threads(1):
        took = measure(SECONDS)
    rows, before = [], None
    for name in took.rounds:
        middle = took.seconds(name).middle
        more = "" if before is None else tables.show_time(middle - before)
        rows.append((name, tables.show_time(middle), more))
        before = middle
    text = tables.table(("with", "in all", "for it"), rows)
    report.put_of_one_core("stages", text)


if __name__ == "__main__":
    main()
