"""Benchmarks as pytest-benchmark's: measures the peers of a group in turn, replays each its rounds.

pytest-benchmark times one test after another. So that peers are timed in turn instead, the first
test of a group has them all measured by ``harness.py``; each test then replays the rounds of its
peer through a timer that reads them off, and the table, the statistics and ``--benchmark-json``
are pytest-benchmark's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch

from bench import harness, machine, peers, targets
from bench.device import DTYPES, Setting
from bench.models import MODELS
from bench.ops import OPS
from bench.training_step import TrainingStep
from bench.workload import Workload


class Case(NamedTuple):
    """A row of a table."""

    name: str  # of an op or a model
    size: Any  # of the op, or the model's batch size
    direction: str
    peer: str

    def __str__(self) -> str:
        return "-".join(map(str, self))


Report = Callable[[Case], None]
QUICK_SECONDS = 0.02


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

    def __init__(self, setting: Setting, seconds: float) -> None:
        self.setting, self.seconds = setting, seconds
        self.key: tuple[str, Any] | None = None
        self.workload: Workload | TrainingStep | None = None
        # Of the collected tests, so that what is left out by -k is not compiled either.
        self.wanted: dict[tuple[str, Any], set[str]] = {}
        self.comparisons: dict[tuple[str, Any, str], harness.Comparison] = {}
        self.verdicts: list[targets.Verdict] = []

    def prepare(self, op: str, size: Any) -> Workload | TrainingStep:
        if self.workload is None or self.key != (op, size):
            self.workload = None  # frees its memory first
            names = {peers.OURS, *self.wanted[op, size]}
            self.workload = (
                Workload(OPS[op], size, self.setting, names)
                if op in OPS
                else TrainingStep(op, size, self.setting, names)
            )
            self.key = op, size
        return self.workload

    def compare(self, op: str, size: Any, direction: str) -> harness.Comparison:
        key = op, size, direction
        if key not in self.comparisons:
            workload = self.prepare(op, size)
            comparison = self.comparisons[key] = workload.compare(direction, self.seconds)
            row = {
                "op": op,
                "size": workload.label,
                "dtype": self.setting.dtype_name,
                "direction": direction,
                "ratios": comparison.ratios(peers.OURS),
            }
            self.verdicts += targets.judge(row)
        return self.comparisons[key]


MEASUREMENTS = pytest.StashKey[Measurements]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("vae_fast benchmarks")
    group.addoption("--threads", type=int, default=0, help="threads; default all cores")
    group.addoption("--measure", type=float, default=1.0, help="seconds for a group; default 1")
    group.addoption("--device", default="cpu", help="cpu, cuda or xpu; default cpu")
    group.addoption("--backend", help="of vae_fast; default the best that runs on the device")
    group.addoption("--dtype", choices=list(DTYPES), default="float32", help="default float32")
    group.addoption("--curves", action="store_true", help="sizes from 2^10 elements up instead")
    group.addoption("--quick", action="store_true", help="the smallest size, a few rounds")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    option = config.getoption
    torch.set_num_threads(option("--threads") or machine.cores())
    setting = Setting(option("--device"), DTYPES[option("--dtype")], option("--backend"))
    seconds = QUICK_SECONDS if option("--quick") else option("--measure")
    config.stash[MEASUREMENTS] = Measurements(setting, seconds)
    # Ratios to the fastest stand in brackets; the mean and its kin say little of a shared machine.
    config.option.benchmark_columns = ["min", "median", "iqr", "rounds", "iterations"]
    config.option.benchmark_sort = "median"


def _sizes(name: str, config: pytest.Config) -> list[Any]:
    """Of an op, or the batch sizes of a model."""
    if name in MODELS:
        sizes: list[Any] = list(MODELS[name].batches)
    elif config.getoption("--curves") and OPS[name].curved:
        sizes = OPS[name].curve(config.stash[MEASUREMENTS].setting.kind)
    else:
        sizes = list(OPS[name].sizes)
    return sizes[:1] if config.getoption("--quick") else sizes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Sizes, directions and peers of the op that a test's module is named after."""
    names = getattr(metafunc.module, "NAMES", ())
    chosen = names[:1] if metafunc.config.getoption("--quick") else names
    cases = [
        Case(name, size, direction, peer)
        for name in chosen
        for size in _sizes(name, metafunc.config)
        for direction in (OPS[name].directions if name in OPS else ("step",))
        for peer in peers.of(name)
    ]
    metafunc.parametrize("case", cases, ids=str)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.stash[MEASUREMENTS].wanted
    for item in items:
        case = item.callspec.params["case"]  # type: ignore[attr-defined]
        wanted.setdefault((case.name, case.size), set()).add(case.peer)
        item.add_marker(pytest.mark.benchmark(timer=REPLAY, disable_gc=False))
        # Compiles and measures a whole group where it is the first test of one.
        item.add_marker(pytest.mark.timeout(600))
        # The imports of the compiler and of some peers use what torch itself deprecates.
        item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))


@pytest.fixture
def report(benchmark: Any, pytestconfig: pytest.Config) -> Report:
    measurements = pytestconfig.stash[MEASUREMENTS]

    def replay(case: Case) -> None:
        name, size, direction, peer = case
        reason = peers.missing(peers.BY_NAME[peer], measurements.setting)
        if reason is not None:
            pytest.skip(f"{peer}: {reason}")
        workload = measurements.prepare(name, size)
        if peer in workload.wrong:
            pytest.skip(f"{peer}: {workload.wrong[peer]}")
        if benchmark.disabled:
            benchmark(lambda: None)  # the results have been checked, and that was all
            return
        comparison = measurements.compare(name, size, direction)
        calls, rounds = comparison.calls[peer], comparison.rounds[peer]
        setting = measurements.setting
        benchmark.group = (
            f"{name} {workload.label} {direction}, {setting.dtype_name}, {setting.device}, "
            f"{torch.get_num_threads()} threads"
        )
        benchmark.name = peer
        benchmark.extra_info["compile_seconds"] = workload.compile_seconds.get(peer)
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
    for work, peer, wanted, got, outcome in verdicts:
        terminalreporter.write_line(f"{work:44} {peer:9} at least {wanted:5} got {got:8} {outcome}")
