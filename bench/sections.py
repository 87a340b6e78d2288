"""What a run measures: shapes and steps, curves and counts as tasks; limits, and peak memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from bench import counts, floor, harness, limit, machine, memory, peers
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


class Task(NamedTuple):
    """Work of one op, or of a model, and what is to be known of it."""

    section: str  # comparisons, curves or counts
    name: str
    size: Any  # of the op, or the model's batch size
    dtype: str
    threads: int


class Limits(NamedTuple):
    """What was measured of the machine in the same run."""

    bandwidth: dict[int, float]  # bytes a second of a large copy, by the number of threads
    floors: list[Row]

    def floor(self, name: str, direction: str) -> float | None:
        """Seconds of the op's empty Function."""
        found = (
            row["seconds"][floor.EMPTY][1]
            for row in self.floors
            if row["op"] == name and row["direction"] == direction
        )
        return next(found, None)


def limits(plan: Plan) -> Limits:
    """Bandwidth by the number of threads, and the floor of each op at its smallest size."""
    bandwidth, floors = {}, []
    for count in plan.threads():
        with harness.threads(count):
            bandwidth[count] = limit.copy(plan.device, plan.quick).bandwidth(plan.seconds)
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


def _shapes(plan: Plan) -> Iterator[Task]:
    """Forward and backward together at the shapes of each op, and the training steps; on all
    cores, and some on one."""
    for count in plan.threads():
        for name in plan.names:
            for dtype in plan.dtypes(name):
                if count != plan.threads()[0] and (name not in ONE_THREAD or dtype != "float32"):
                    continue
                for size in plan.sizes(name):
                    yield Task("comparisons", name, size, dtype, count)


def _growth(plan: Plan) -> Iterator[Task]:
    """Every direction, from 2^10 elements up."""
    for name in (name for name in plan.ops() if OPS[name].curved):
        for dtype in plan.dtypes(name):
            for size in OPS[name].curve(plan.setting().kind)[: 1 if plan.quick else None]:
                yield Task("curves", name, size, dtype, machine.cores())


def _smallest(plan: Plan) -> Iterator[Task]:
    for name in plan.names:
        yield Task("counts", name, plan.sizes(name)[0], "float32", machine.cores())


TASKS = {"comparisons": _shapes, "counts": _smallest, "curves": _growth}


def tasks(plan: Plan, chosen: Collection[str]) -> list[Task]:
    """Those of the chosen sections, in the order of the sections."""
    return [task for section in TASKS if section in chosen for task in TASKS[section](plan)]


def make(plan: Plan, task: Task, check: bool = True) -> Work:
    """Compiles it, on the number of threads that torch has now."""
    chosen = plan.peers
    if task.section == "counts" and plan.quick:
        chosen = (peers.OURS, peers.EAGER)
    setting = plan.setting(task.dtype)
    if task.name in OPS:
        return Workload(OPS[task.name], task.size, setting, chosen, check)
    return TrainingStep(task.name, task.size, setting, chosen, check)


def rows(plan: Plan, task: Task, work: Work, limits: Limits) -> list[Row]:
    """What there is to tell of the work: a row for each direction that is timed."""
    if task.section == "counts":
        return [_launches(task, work)]
    if task.section == "curves":
        directions, seconds = OPS[task.name].directions, plan.curve_seconds
    elif task.name in OPS:
        directions, seconds = OPS[task.name].directions[-1:], plan.seconds
    else:
        directions, seconds = ("step",), plan.step_seconds
    return [_compared(plan, task, work, direction, seconds, limits) for direction in directions]


def in_turn(plan: Plan, chosen: list[Task], limits: Limits) -> Iterator[tuple[Task, list[Row]]]:
    """Makes and measures one after another."""
    for task in chosen:
        with harness.threads(task.threads):
            work = make(plan, task)
            found = rows(plan, task, work, limits)
        del work  # or it would be there while the next is made
        yield task, found


def _compared(
    plan: Plan, task: Task, work: Work, direction: str, seconds: float, limits: Limits
) -> Row:
    least, at_best = work.least_bytes(direction), limits.floor(task.name, direction)
    by_memory = limit.seconds(least, limits.bandwidth.get(task.threads))
    bandwidth = None
    if isinstance(work, Workload) and (by_memory or 0.0) > (at_best or 0.0):
        copy = limit.copy(plan.device, plan.quick)
        comparison = work.compare(direction, seconds, beside={limit.COPY: copy.block})
        bandwidth = copy.bytes / comparison.seconds(limit.COPY).middle
        comparison = comparison.without(limit.COPY)
        by_memory = limit.seconds(least, bandwidth)
    else:
        comparison = work.compare(direction, seconds)
    at_best = max((each for each in (at_best, by_memory) if each is not None), default=None)
    ours = comparison.seconds(peers.OURS)
    row: Row = {
        "op": task.name,
        "size": work.label,
        "dtype": work.setting.dtype_name,
        "direction": direction,
        "threads": task.threads,
        "rounds": len(comparison.rounds[peers.OURS]),
        "compile_seconds": work.compile_seconds,
        "wrong": work.wrong,
        "seconds": {peer: comparison.seconds(peer) for peer in comparison.rounds},
        "ratios": comparison.ratios(peers.OURS),
        "least_bytes": least,
        "copy_bandwidth": bandwidth,
        "limit_seconds": at_best,
        "of_limit": None if at_best is None else at_best / ours.middle,
    }
    if isinstance(work, Workload):
        row["elements"] = work.op.elements(work.size)
    shown = "  ".join(f"{peer} {ratio.middle:.2f}" for peer, ratio in row["ratios"].items())
    print(
        f"{task.threads} threads  {task.name} {work.label} {row['dtype']} {direction}: "
        f"{ours.middle * 1e6:.1f} µs  {shown}",
        flush=True,
    )
    return row


def _launches(task: Task, work: Work) -> Row:
    """Kernels or aten calls of a pass, and how much of a step is not matrix products."""
    names = list(work.functions if isinstance(work, Workload) else work.steps)
    steps = {peer: work.step(peer) for peer in names}
    row: Row = {
        "op": task.name, "size": work.label, "dtype": work.setting.dtype_name, "shares": {},
    }  # fmt: skip
    if work.setting.kind == "cpu":
        row["calls"] = {peer: counts.calls(step) for peer, step in steps.items()}
        if isinstance(work, TrainingStep):
            row["shares"] = {p: counts.shares(s)._asdict() for p, s in steps.items()}
    else:
        kernels = {peer: counts.kernels(step, work.setting) for peer, step in steps.items()}
        row["calls"] = {peer: sum(k.calls for k in made) for peer, made in kernels.items()}
        row["kernel_seconds"] = {p: sum(k.seconds for k in made) for p, made in kernels.items()}
    return row


def peaks(plan: Plan) -> Iterator[Row]:
    """Peak memory of each peer, a process each."""
    # At once where they share no memory that is looked at: an allocator's is a process's.
    at_once = 1 if plan.device == "cpu" else max(1, machine.cores() - 2)
    with ThreadPoolExecutor(at_once) as pool:
        started = [(row, _start_peaks(plan, row, pool)) for row in _peak_rows(plan)]
        for row, found in started:
            row["bytes"] = {peer: future.result() for peer, future in found.items()}
            print(f"peak memory  {row['op']} {row['size']} {row['dtype']}: {row['bytes']}",
                  flush=True)  # fmt: skip
            yield row


def _peak_rows(plan: Plan) -> Iterator[Row]:
    for name in (name for name in plan.names if name in MEMORY):
        for dtype in plan.dtypes(name):
            size = LARGE.label(OPS[name]) if name in OPS else MODELS[name].label(_batch(name))
            yield {"op": name, "size": size, "dtype": dtype}


def _batch(model: str) -> int:
    return MODELS[model].batches[0]


def _start_peaks(plan: Plan, row: Row, pool: ThreadPoolExecutor) -> dict[str, Future[int | None]]:
    name, setting = row["op"], plan.setting(row["dtype"])
    names = [peer.name for peer in peers.present(name, setting)]
    if plan.peers is not None:
        names = [peer for peer in names if peer in plan.peers]
    # A graph's memory is a pool that stays: its calls take none.
    names = [peer for peer in names if not peers.BY_NAME[peer].options]
    if plan.quick:
        names = [peers.OURS, peers.EAGER]
    size = LARGE if name in OPS else _batch(name)
    return {peer: pool.submit(memory.peak, name, size, setting, peer) for peer in names}
