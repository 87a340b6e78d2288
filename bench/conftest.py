"""The ``report`` fixture: measures the peers of a group in turn, and hands each its own rounds.

pytest-benchmark times one test after another. So that peers are timed in turn instead, the first
test of a group has them all measured by ``harness.py``; each test then replays the rounds of its
peer through a timer that reads them off, and the table, the statistics and ``--benchmark-json``
are pytest-benchmark's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from bench import harness, targets
from bench.ops import OPS, Size
from bench.training_step import TrainingStep
from bench.workload import Workload

Report = Callable[[str, Any, str, str], None]


class Replay:
    """A timer between whose readings the next recorded duration has passed."""

    def __init__(self) -> None:
        self.readings: Iterator[float] = iter(())

    def load(self, durations: list[float]) -> None:
        self.readings = (reading for duration in durations for reading in (0.0, duration))

    def __call__(self) -> float:
        return next(self.readings)


REPLAY = Replay()


class Measurements:
    """One workload at a time, and what was measured so far."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.key: tuple[str, Any] | None = None
        self.workload: Workload | TrainingStep | None = None
        self.comparisons: dict[tuple[str, Any, str], harness.Comparison] = {}
        self.verdicts: list[targets.Verdict] = []

    def prepare(self, op: str, size: Any) -> Workload | TrainingStep:
        if self.workload is None or self.key != (op, size):
            self.workload = None  # frees its memory first
            self.workload = (
                Workload(OPS[op], size) if isinstance(size, Size) else TrainingStep(size)
            )
            self.key = op, size
        return self.workload

    def compare(self, op: str, size: Any, direction: str) -> harness.Comparison:
        key = op, size, direction
        if key not in self.comparisons:
            workload = self.prepare(op, size)
            self.comparisons[key] = workload.compare(direction, self.seconds)
            self.verdicts += targets.judge(op, workload.label, direction, self.comparisons[key])
        return self.comparisons[key]


MEASUREMENTS = pytest.StashKey[Measurements]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vae_fast benchmarks")
    group.addoption("--threads", type=int, default=0, help="threads; default all cores")
    group.addoption("--measure", type=float, default=1.0, help="seconds for a group; default 1")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--threads"):
        torch.set_num_threads(config.getoption("--threads"))
    config.stash[MEASUREMENTS] = Measurements(config.getoption("--measure"))
    # Ratios to the fastest stand in brackets; the mean and its kin say little of a shared machine.
    config.option.benchmark_columns = ["min", "median", "iqr", "rounds", "iterations"]
    config.option.benchmark_sort = "median"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=REPLAY, disable_gc=False))
        # Compiles and measures a whole group where it is the first test of one.
        item.add_marker(pytest.mark.timeout(600))
        # The compiler's imports use what torch itself deprecates.
        item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))


@pytest.fixture
def report(benchmark: Any, pytestconfig: pytest.Config) -> Report:
    measurements = pytestconfig.stash[MEASUREMENTS]

    def replay(op: str, size: Any, direction: str, peer: str) -> None:
        workload = measurements.prepare(op, size)
        if benchmark.disabled:
            benchmark(lambda: None)  # the results have been checked, and that was all
            return
        comparison = measurements.compare(op, size, direction)
        calls, rounds = comparison.calls[peer], comparison.rounds[peer]
        benchmark.group = f"{op} {workload.label} {direction}, {torch.get_num_threads()} threads"
        benchmark.name = peer
        benchmark.extra_info["compile_seconds"] = workload.compile_seconds
        REPLAY.load([seconds * calls for seconds in rounds])
        benchmark.pedantic(lambda: None, rounds=len(rounds), iterations=calls)

    return replay


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    verdicts = config.stash[MEASUREMENTS].verdicts
    if not verdicts:
        return
    terminalreporter.section(f"targets, on {torch.get_num_threads()} threads")
    for verdict in verdicts:
        what, peer, wanted, got, reached = verdict.row()
        terminalreporter.write_line(f"{what:32} {peer:9} at least {wanted:5} got {got:8} {reached}")
