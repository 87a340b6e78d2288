"""Where the time of ``sample_kl`` at its smallest size goes: ``python -m bench.stages``.

Forward and backward on one thread; each row does what the one before does and something more. On
the CPU writes the table of ``docs/performance/method.md``; with ``--device cuda`` the stages of
each backend of a GPU, the device waited for in every call, what its kernels take there, and a
replay of the whole as a CUDA graph, to ``--out``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bench import counts, floor, gpu_machine, harness, peers, report, tables
from bench.device import Setting
from bench.ops import OPS, Inputs, run_backward
from bench.workload import Workload
from vae_fast import _backends, _seed
from vae_fast._control import NO_CONTROL
from vae_fast.autograd.sample_kl import sample_kl

OP = OPS["sample_kl"]
SECONDS = 4.0
WAITING, REPLAYED = "waiting for a device that has nothing to do", "a replay of it as a CUDA graph"
WARM_UP_CALLS = 3
Step = Callable[[int], object]


def _without_kernels(z: Tensor, kl: Tensor) -> ModuleType:
    """A backend that makes the results and computes none."""
    backend: Any = ModuleType("nothing")
    backend.sample_kl_forward = lambda *_: (torch.empty_like(z), torch.empty_like(kl), None)
    backend.sample_kl_backward = lambda *_: (torch.empty_like(z), torch.empty_like(z), None, None)
    return backend


def _replay(inputs: Inputs, call: Callable[..., Any]) -> Step:
    """Forward and backward pass of these inputs, captured once."""
    leaves = [tensor for tensor in inputs.arguments if tensor.requires_grad]

    def once() -> object:
        return torch.autograd.grad(call(*inputs.arguments), leaves, inputs.upstream)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_CALLS):
            once()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    return lambda _: graph.replay()


def stages(work: Workload) -> dict[str, Step]:
    """What is done, by the name of what it does more than the one before."""
    backend = _backends.get(
        _backends.choose(work.setting.backend, torch.device(work.setting.device))
    )
    z, kl = (t.detach() for t in work.functions[peers.OURS](*work.copies[0].arguments))

    def function(mean: Tensor, logvar: Tensor, seed: int | Tensor, backend: ModuleType) -> Any:
        options = (seed, None, 1, 0, (-30.0, 20.0), NO_CONTROL, False)
        return sample_kl.apply(options, backend, (mean, logvar, None, None, None))[:2]

    nothing = _without_kernels(z, kl)
    calls = {
        "an empty Function": work.functions[floor.EMPTY],
        "the op's Function, without its kernels": lambda m, v: function(m, v, 1, nothing),
        "its kernels, and the way into them": lambda m, v: function(m, v, 1, backend),
        "drawing a seed": lambda m, v: function(m, v, _seed.draw(m.device, None), backend),
        "the checks of the arguments and the choice of a backend": work.functions[peers.OURS],
    }

    def step(call: Any) -> Step:
        def run(number: int) -> None:
            inputs = work.upstreams[peers.OURS][number % len(work.copies)]
            inputs.clear()
            run_backward(inputs, call(*inputs.arguments))

        return run

    return {name: step(call) for name, call in calls.items()}


def workload(setting: Setting) -> Workload:
    work = Workload(OP, OP.sizes[0], setting, (peers.OURS,))
    work.add_empty()
    return work


def measure(work: Workload, steps: dict[str, Step], seconds: float) -> harness.Comparison:
    blocks = {name: harness.timed(step, work.wait) for name, step in steps.items()}
    return harness.interleave(blocks, seconds)


def rows(took: harness.Comparison) -> list[tuple[str, float, float | None]]:
    """Name, seconds in all, and how many of them it adds to those before."""
    middles = {name: took.seconds(name).middle for name in took.rounds}
    before = [None, *middles.values()]
    return [
        (name, middle, None if earlier is None else middle - earlier)
        for (name, middle), earlier in zip(middles.items(), before, strict=False)
    ]


def on_gpu(backend: str, seconds: float) -> dict[str, Any]:
    """The stages of a backend, each kernel's name and seconds, and a replay of the whole."""
    work = workload(Setting("cuda", torch.float32, backend))
    steps: dict[str, Step] = {WAITING: lambda _: None, **stages(work)}
    # The replay is no stage: it does the same in another way.
    replay = {REPLAYED: _replay(work.upstreams[peers.OURS][0], work.functions[peers.OURS])}
    took = measure(work, steps | replay, seconds)
    *found, (_, replayed, _) = rows(took)
    return {
        "backend": backend,
        "op": OP.name,
        "size": work.label,
        "stages": found,
        "replay_seconds": replayed,
        "kernels": counts.kernels(work.step(peers.OURS), work.setting),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="where the stages of a GPU go")
    options = parser.parse_args()
    if options.device == "cuda":
        if options.out is None:
            parser.error("--device cuda needs --out")
        made = []
        for backend in gpu_machine.backends():
            made.append(on_gpu(backend, SECONDS))
            options.out.write_text(json.dumps(made, indent=1) + "\n")
            print(json.dumps(made[-1], indent=1), flush=True)
        return
    with harness.threads(1):
        work = workload(Setting("cpu", torch.float32, "cpu"))
        took = measure(work, stages(work), SECONDS)
    shown = (
        (name, tables.show_time(middle), "" if more is None else tables.show_time(more))
        for name, middle, more in rows(took)
    )
    report.put_of_one_core("stages", tables.table(("with", "in all", "for it"), shown))


if __name__ == "__main__":
    main()
