"""What a run measures, a function each: shapes and steps, curves, floors, memory, counts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from bench import counts, floor, harness, limit, machine, memory, peers
from bench.ahead import Piece, Seconds
from bench.device import DTYPES, Setting
from bench.models import MODELS
from bench.ops import OPS, Size
from bench.training_step import TrainingStep
from bench.workload import Workload

Work = Workload | TrainingStep
Row = dict[str, Any]
HALF = ("sample_kl", "negative_elbo", "elbo", "mlp784")  # what is measured in bfloat16 as well
ONE_THREAD = ("sample_kl", "negative_elbo", "mlp784")  # and on one thread
# Where memory is measured, a process each.
MEMORY = ("sample_kl", "negative_elbo", "elbo", "mlp784", "tabular20000")
LARGE = Size(4096, 128, 3072)


class Plan(NamedTuple):
    """What a run was asked for."""

    names: tuple[str, ...]  # of ops and models
    device: str
    backend: str | None
    quick: bool
    seconds: float  # of a comparison
    curve_seconds: float  # of one on a curve, of which there are many
    step_seconds: float  # of one of training steps: matrix products vary more
    peers: tuple[str, ...] | None = None  # None: all

    def setting(self, dtype: str = "float32") -> Setting:
        return Setting(self.device, DTYPES[dtype], self.backend)

    def dtypes(self, name: str) -> tuple[str, ...]:
        return tuple(DTYPES) if name in HALF and not self.quick else ("float32",)

    def ops(self) -> list[str]:
        return [name for name in self.names if name in OPS]

    def threads(self) -> list[int]:
        """All cores, then one; a GPU does not care."""
        counts = [machine.cores(), 1] if self.device == "cpu" else [machine.cores()]
        return list(dict.fromkeys(counts))

    def sizes(self, name: str) -> tuple[Any, ...]:
        """Of an op, or the batch sizes of a model."""
        sizes: tuple[Any, ...] = OPS[name].sizes if name in OPS else MODELS[name].batches
        return sizes[:1] if self.quick else sizes


class Limits(NamedTuple):
    """What was measured of the machine in the same run."""

    bandwidth: dict[int, float]  # bytes a second of a large copy, by the number of threads
    floors: list[Row]

    def seconds(self, name: str, direction: str, threads: int, least: int | None) -> float | None:
        floors = (
            row["seconds"][floor.EMPTY][1]
            for row in self.floors
            if row["op"] == name and row["direction"] == direction
        )
        return limit.seconds(least, self.bandwidth.get(threads), next(floors, None))


def _make(name: str, size: Any, setting: Setting, chosen: Collection[str] | None = None) -> Work:
    if name in OPS:
        return Workload(OPS[name], size, setting, chosen)
    return TrainingStep(name, size, setting, chosen)


def shapes(plan: Plan) -> Iterator[Piece]:
    """What ``comparisons`` times on all cores."""
    for name in plan.names:
        for dtype in plan.dtypes(name):
            for size in plan.sizes(name):
                yield Piece(name, size, dtype)


def growth(plan: Plan) -> Iterator[Piece]:
    """What ``curves`` times."""
    for name in (name for name in plan.ops() if OPS[name].curved):
        for dtype in plan.dtypes(name):
            for size in OPS[name].curve(plan.setting().kind)[: 1 if plan.quick else None]:
                yield Piece(name, size, dtype)


def _measure(
    name: str,
    work: Work,
    direction: str,
    threads: int,
    seconds: float,
    limits: Limits,
    compile_seconds: dict[str, float],
) -> Row:
    comparison = work.compare(direction, seconds)
    least = work.least_bytes(direction)
    at_best = limits.seconds(name, direction, threads, least)
    ours = comparison.seconds(peers.OURS)
    row: Row = {
        "op": name,
        "size": work.label,
        "dtype": work.setting.dtype_name,
        "direction": direction,
        "threads": threads,
        "rounds": len(comparison.rounds[peers.OURS]),
        "compile_seconds": compile_seconds or work.compile_seconds,
        "seconds": {peer: comparison.seconds(peer) for peer in comparison.rounds},
        "ratios": comparison.ratios(peers.OURS),
        "least_bytes": least,
        "limit_seconds": at_best,
        "of_limit": None if at_best is None else at_best / ours.middle,
    }
    if isinstance(work, Workload):
        row["elements"] = work.op.elements(work.size)
    shown = "  ".join(f"{peer} {ratio.middle:.2f}" for peer, ratio in row["ratios"].items())
    print(
        f"{threads} threads  {name} {work.label} {row['dtype']} {direction}: "
        f"{ours.middle * 1e6:.1f} µs  {shown}",
        flush=True,
    )
    return row


def limits(plan: Plan) -> Limits:
    """Bandwidth by the number of threads, and the floor of each op at its smallest size."""
    bandwidth, floors = {}, []
    for count in plan.threads():
        with harness.threads(count):
            bandwidth[count] = limit.copy_bandwidth(plan.device, plan.seconds, plan.quick)
    for name in plan.ops():
        work = Workload(OPS[name], OPS[name].sizes[0], plan.setting(), (peers.OURS,))
        work.add_empty()
        for direction in work.op.directions:
            comparison = work.compare(direction, plan.seconds)
            floors.append(
                {
                    "op": name,
                    "size": work.label,
                    "direction": direction,
                    "seconds": {peer: comparison.seconds(peer) for peer in comparison.rounds},
                }
            )
    return Limits(bandwidth, floors)


def comparisons(plan: Plan, limits: Limits, compiled: Seconds) -> Iterator[Row]:
    """Forward and backward together at the shapes of each op, and the training steps.

    ``compiled``: how long that took, where it was done before.
    """
    for count in plan.threads():
        with harness.threads(count):
            for piece in shapes(plan):
                name, size, dtype = piece
                if count != plan.threads()[0] and (name not in ONE_THREAD or dtype != "float32"):
                    continue
                direction = OPS[name].directions[-1] if name in OPS else "step"
                seconds = plan.seconds if name in OPS else plan.step_seconds
                # Not kept, or it would be there while the next is made.
                yield _measure(
                    name, _make(name, size, plan.setting(dtype), plan.peers), direction, count,
                    seconds, limits, compiled.get(piece, {}),
                )  # fmt: skip


def curves(plan: Plan, limits: Limits, compiled: Seconds) -> Iterator[Row]:
    """Every direction, from 2^10 elements up."""
    for piece in growth(plan):
        name, size, dtype = piece
        work = _make(name, size, plan.setting(dtype), plan.peers)
        for direction in OPS[name].directions:
            yield _measure(
                name, work, direction, machine.cores(), plan.curve_seconds, limits,
                compiled.get(piece, {}),
            )  # fmt: skip
        del work


def peaks(plan: Plan) -> Iterator[Row]:
    """Peak memory of each peer, a process each."""
    for name in (name for name in plan.names if name in MEMORY):
        size: Any = LARGE if name in OPS else MODELS[name].batches[0]
        for dtype in plan.dtypes(name):
            setting = plan.setting(dtype)
            names = [peer.name for peer in peers.present(name, setting)]
            if plan.peers is not None:
                names = [peer for peer in names if peer in plan.peers]
            # A graph's memory is a pool that stays: its calls take none.
            names = [peer for peer in names if not peers.BY_NAME[peer].options]
            if plan.quick:
                names = [peers.OURS, peers.EAGER]
            label = size.label(OPS[name]) if name in OPS else MODELS[name].label(size)
            # At once where they share no memory that is looked at: an allocator's is a process's.
            with ThreadPoolExecutor(1 if plan.device == "cpu" else len(names)) as pool:
                found = pool.map(partial(memory.peak, name, size, setting), names)
            row = {
                "op": name,
                "size": label,
                "dtype": dtype,
                "bytes": dict(zip(names, found, strict=True)),
            }
            print(f"peak memory  {name} {label} {dtype}: {row['bytes']}", flush=True)
            yield row


def launches(plan: Plan) -> Iterator[Row]:
    """Kernels or aten calls of a pass, and how much of a step is not matrix products."""
    for name in plan.names:
        chosen = (peers.OURS, peers.EAGER) if plan.quick else plan.peers
        work = _make(name, plan.sizes(name)[0], plan.setting(), chosen)
        names = list(work.functions if isinstance(work, Workload) else work.steps)
        steps = {peer: work.step(peer) for peer in names}
        row: Row = {"op": name, "size": work.label, "dtype": work.setting.dtype_name, "shares": {}}
        if plan.device == "cpu":
            row["calls"] = {peer: counts.calls(step) for peer, step in steps.items()}
            if isinstance(work, TrainingStep):
                row["shares"] = {p: counts.shares(s)._asdict() for p, s in steps.items()}
        else:
            kernels = {peer: counts.kernels(step, work.setting) for peer, step in steps.items()}
            row["calls"] = {peer: sum(k.calls for k in made) for peer, made in kernels.items()}
            row["kernel_seconds"] = {p: sum(k.seconds for k in made) for p, made in kernels.items()}
        yield row
