"""Prepares works in several processes at once, and has each measure its own when its turn comes.

A GPU that is there for minutes would else be left waiting for one core that traces and compiles.
While one process measures, the others wait: the device and the cores are its own.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from bench import device, harness, machine
from bench.sections import Limits, Plan, Row, Task, Work, make, rows


class _Failure(NamedTuple):
    text: str


def _tune_alone(lock: Any) -> None:
    """Inductor times the configurations of a kernel while others compile: one process at a time."""
    from torch._inductor.runtime.triton_heuristics import CachingAutotuner

    time_all = CachingAutotuner.benchmark_all_configs

    def alone(*arguments: Any, **options: Any) -> Any:
        with lock:
            return time_all(*arguments, **options)

    CachingAutotuner.benchmark_all_configs = alone  # type: ignore[method-assign]


def _prepare(plan: Plan, task: Task) -> Work | None:
    """Unchecked, since that takes the device; None where there is no memory before its turn."""
    try:
        return make(plan, task, check=False)
    except torch.OutOfMemoryError:
        return None


def _measure(plan: Plan, task: Task, work: Work | None, limits: Limits) -> list[Row]:
    if work is None:
        work = make(plan, task, check=False)
    work.check()
    return rows(plan, task, work, limits)


def _attempt(action: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return action(*arguments)
    except Exception:
        return _Failure(traceback.format_exc())


def _serve(connection: Connection, plan: Plan, limits: Limits, lock: Any) -> None:
    """Of each task says when it is prepared, and when told to measure it sends the rows."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # each process has a core
    on_cpu = plan.setting().kind == "cpu"
    if not on_cpu:
        _tune_alone(lock)
    while (task := connection.recv()) is not None:
        with harness.threads(task.threads):
            work = _attempt(_prepare, plan, task)
            failed = isinstance(work, _Failure)
            connection.send(work if failed else None)
            if not failed:
                connection.recv()  # its turn
                connection.send(_attempt(_measure, plan, task, work, limits))
        del work
        gc.collect()
        if not on_cpu:
            device.module(plan.device).empty_cache()


def _answer(connection: Connection, task: Task) -> Any:
    try:
        return connection.recv()
    except EOFError:
        raise RuntimeError(f"the process that was to measure {task} has ended") from None


def rows_of(
    plan: Plan, chosen: list[Task], limits: Limits, processes: int | None = None
) -> Iterator[tuple[Task, list[Row]]]:
    """As ``sections.in_turn``, prepared in as many processes as there are cores to spare.

    Raises:
        RuntimeError: at the end, where some could not be prepared or measured; or at once, where
            a process has ended.
    """
    if not chosen:
        return
    count = min(processes or max(1, machine.cores() - 2), len(chosen))
    context = multiprocessing.get_context("spawn")
    lock = context.Lock()
    started = []
    for _ in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, plan, limits, lock), daemon=True)
        process.start()
        started.append((process, ours))
    failures: list[str] = []
    try:
        for begin in range(0, len(chosen), count):
            wave = list(zip(chosen[begin : begin + count], started, strict=False))
            for task, (_, connection) in wave:
                connection.send(task)
            prepared = [(task, each, _answer(each, task)) for task, (_, each) in wave]
            for task, connection, answer in prepared:
                if answer is None:
                    connection.send(None)
                    answer = _answer(connection, task)
                if isinstance(answer, _Failure):
                    failures.append(f"{task}: {answer.text}")
                    print(failures[-1], flush=True)
                else:
                    yield task, answer
        for _, connection in started:
            connection.send(None)
        for process, _ in started:
            process.join()
    finally:
        for process, _ in started:
            process.kill()
    if failures:
        raise RuntimeError("\n".join(failures))
