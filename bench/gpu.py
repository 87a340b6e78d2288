"""Figures of a GPU: bandwidth of every op, and the ratio to eager and compiled PyTorch.

``make gpu-check`` runs this; by itself, ``python -m bench.gpu --out figures.json``. Each backend of
the package that runs the device is measured. An op's bandwidth is the least bytes that it has to
move over its time, beside that of a device-to-device copy in the same run, with the peers taking
turns (``harness.py``). Times are those of the device, between events.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vae_fast.functional as F
from bench import gpu_machine, harness, ops, peers
from bench.device import Setting
from bench.workload import Workload

# Tensors of [N, D] that each direction reads and writes at the least.
TRIPS = {
    ("sample_kl", "forward"): 3,
    ("sample_kl", "backward"): 5,
    ("gaussian_kl", "forward"): 2,
    ("gaussian_kl", "backward"): 4,
    ("gaussian_log_likelihood", "forward"): 3,
    ("gaussian_log_likelihood", "backward"): 5,
    ("negative_elbo", "both"): 5,
    ("noise", "forward"): 1,
}
COPY = "copy"
OF_COPY = 0.9  # of its bandwidth: the target of every op
RATIOS = {"negative_elbo": 1.5, "sample_kl": 1.3}  # to the better of the compiled peers
SMALL, SMALL_RATIO = ops.Size(128, 20, 784), 3.0  # of the whole ELBO to eager
COLS = 4096  # of every op's rows
# And rows of so many latents, for the ops on the encoder's side: a warp has several of them.
LATENTS = (128, 32)
ON_LATENTS = ("sample_kl", "gaussian_kl")
GIB = 1 << 30
COMPILERS = (peers.COMPILED, f"{peers.COMPILED} max-autotune")
SECONDS = 0.25  # for a comparison


def elements_for(memory: int) -> int:
    """2^28 where ten float32 tensors of them fit; else fewer."""
    return 1 << 28 if memory >= 20 * GIB else 1 << 25


def least_bytes(op: str, direction: str, elements: int, dtype: torch.dtype) -> int:
    return TRIPS[op, direction] * elements * dtype.itemsize


def event_timed(call: Callable[[], object]) -> harness.Block:
    """A block of calls between two events of the current stream."""

    def block(calls: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3

    return block


def _tensors(names: int, shape: tuple[int, int], dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(shape, device="cuda", dtype=dtype) for _ in range(names)]


def _calls(
    backend: str, shape: tuple[int, int], dtype: torch.dtype
) -> dict[tuple[str, str], Callable[[], Any]]:
    """Every op and direction on inputs of this shape."""
    x, mean, logvar, grad_z = _tensors(4, shape, dtype)
    rows, _ = shape
    leaves = [mean.requires_grad_(), logvar.mul_(0.5).requires_grad_()]
    kl, grad = torch.rand(rows, device="cuda"), torch.randn(rows, device="cuda")
    seed = torch.zeros((), dtype=torch.int64, device="cuda")

    def without_gradients(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.no_grad():
                return call()

        return run

    forward: dict[str, Callable[[], Any]] = {
        "sample_kl": lambda: F.sample_kl(*leaves, seed=seed, backend=backend),
        "gaussian_kl": lambda: F.gaussian_kl(*leaves, backend=backend),
        "gaussian_log_likelihood": lambda: F.gaussian_log_likelihood(x, *leaves, backend=backend),
        "noise": lambda: F.noise(mean.shape, seed=seed, dtype=dtype, device="cuda",
                                 backend=backend),
    }  # fmt: skip
    upstream = {"sample_kl": (grad_z, grad)}
    calls = {(op, "forward"): without_gradients(call) for op, call in forward.items()}

    def backward(op: str) -> Callable[[], Any]:
        outputs: Any = None

        def run() -> Any:  # the forward pass is made before the first, which is not timed
            nonlocal outputs
            outputs = forward[op]() if outputs is None else outputs
            return torch.autograd.grad(outputs, leaves, upstream.get(op, grad), retain_graph=True)

        return run

    for op in ("sample_kl", "gaussian_kl", "gaussian_log_likelihood"):
        calls[op, "backward"] = backward(op)
    calls["negative_elbo", "both"] = lambda: torch.autograd.grad(
        F.negative_elbo(x, leaves[0], leaves[1], kl, backend=backend), leaves
    )
    return calls


def bandwidths(
    backend: str, shape: tuple[int, int], dtype: torch.dtype, wanted: Collection[str]
) -> list[dict[str, Any]]:
    rows, cols = shape
    elements = rows * cols
    source, target = _tensors(2, shape, dtype)
    copy = event_timed(lambda: target.copy_(source))
    found = []
    for (op, direction), call in _calls(backend, shape, dtype).items():
        if op not in wanted:
            continue
        comparison = harness.interleave({op: event_timed(call), COPY: copy}, SECONDS)
        seconds = {name: comparison.seconds(name) for name in (op, COPY)}
        moved = least_bytes(op, direction, elements, dtype), 2 * elements * dtype.itemsize
        gbs = [count / seconds[name].middle * 1e-9 for count, name in zip(moved, seconds,
                                                                         strict=True)]  # fmt: skip
        found.append(
            {
                "op": op,
                "direction": direction,
                "dtype": str(dtype).removeprefix("torch."),
                "shape": [rows, cols],
                "seconds": seconds[op],
                "gb_per_s": gbs[0],
                "copy_gb_per_s": gbs[1],
                "of_copy": gbs[0] / gbs[1],
                "target": OF_COPY,
                "reached": gbs[0] / gbs[1] >= OF_COPY,
            }
        )
    return found


def ratios(name: str, size: ops.Size, compilers: Sequence[str], backend: str) -> dict[str, Any]:
    """Forward and backward together, beside eager and the named compiled peers."""
    op, setting = ops.OPS[name], Setting("cuda", torch.float32, backend)
    workload = Workload(op, size, setting, (peers.OURS, peers.EAGER, *compilers))
    steps = {peer: workload.step(peer) for peer in workload.functions}
    blocks = {peer: event_timed(partial(step, 0)) for peer, step in steps.items()}
    comparison = harness.interleave(blocks, 2 * SECONDS)
    made = {peer: comparison.ratio(peer, peers.OURS) for peer in steps if peer != peers.OURS}
    if compilers:
        target, reached = RATIOS[name], min(made[peer].middle for peer in compilers)
    else:
        target, reached = SMALL_RATIO, made[peers.EAGER].middle
    return {
        "op": name,
        "size": size.label(op),
        "seconds": {peer: comparison.seconds(peer) for peer in steps},
        "compile_seconds": workload.compile_seconds,
        "ratios": made,
        "target": target,
        "reached": reached >= target,
    }


def measure(backends: Sequence[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every figure of the current device: of which backend, of which kind, and itself.

    What is compiled comes last: ``max-autotune`` tries for as long as it takes.
    """
    elements = elements_for(torch.cuda.get_device_properties(0).total_memory)
    every_op = {op for op, _ in TRIPS}
    for cols, ops_of_rows in ((COLS, every_op), *((cols, ON_LATENTS) for cols in LATENTS)):
        for backend in backends:
            for dtype in (torch.float32, torch.bfloat16):
                for row in bandwidths(backend, (elements // cols, cols), dtype, ops_of_rows):
                    yield backend, "bandwidth", row
    torch.cuda.empty_cache()
    for backend in backends:
        yield backend, "ratios", ratios("elbo", SMALL, (), backend)
    size = ops.Size(elements // COLS // 4, COLS, COLS)
    for name in RATIOS:
        for backend in backends:
            yield backend, "ratios", ratios(name, size, COMPILERS, backend)


def line(backend: str, kind: str, row: dict[str, Any]) -> str:
    """What the short table says of a figure."""
    verdict = "reached" if row["reached"] else "not reached"
    if kind == "bandwidth":
        return (
            f"{backend}  {row['op']} {row['direction']} {'x'.join(map(str, row['shape']))} "
            f"{row['dtype']}: {row['gb_per_s']:.0f} GB/s, {row['of_copy']:.0%} of a copy "
            f"({row['target']:.0%}: {verdict})"
        )
    found = ", ".join(f"{peer} {spread[1]:.2f}x" for peer, spread in row["ratios"].items())
    return f"{backend}  {row['op']} {row['size']} both: {found} ({row['target']}x: {verdict})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    backends = gpu_machine.backends()
    figures: dict[str, dict[str, list[Any]]] = {
        name: {"bandwidth": [], "ratios": []} for name in backends
    }
    for backend, kind, row in measure(backends):
        figures[backend][kind].append(row)
        options.out.write_text(json.dumps(figures, indent=1) + "\n")  # the next may take too long
        print(line(backend, kind, row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
