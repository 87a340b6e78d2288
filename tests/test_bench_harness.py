"""The benchmarks' clock, floor, memory and counts."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import bench_folder  # noqa: F401
import pytest
import torch

from bench import (
    ahead,
    compiled_callers,
    counts,
    device,
    floor,
    harness,
    limit,
    machine,
    memory,
    peers,
    run,
    sections,
    stages,
)
from bench.device import Setting
from bench.ops import OPS, Size
from bench.workload import Workload

TINY = Size(4, 8, 12)
MEGABYTE = 2**20


def test_the_device_is_waited_for_inside_the_timed_call() -> None:
    """A call that returns at once, and a device that needs 2 ms."""
    calls: list[str] = []

    def wait() -> None:
        if calls and calls[-1] == "call":
            time.sleep(2e-3)
        calls.append("wait")

    block = harness.timed(lambda _: calls.append("call"), wait)
    assert block(3) > 6e-3
    assert calls == ["wait", "call", "wait", "call", "wait", "call", "wait"]


def test_what_is_prepared_is_not_timed() -> None:
    order: list[str] = []

    def prepare(number: int) -> int:
        order.append(f"prepare {number}")
        time.sleep(2e-2)
        return number

    block = harness.timed_after(prepare, lambda number: order.append(f"call {number}"))
    assert block(2) < 1e-2
    block(1)
    assert order == [f"{what} {n}" for n in range(3) for what in ("prepare", "call")]


def test_peers_take_turns() -> None:
    order: list[str] = []

    def block(name: str) -> harness.Block:
        def run(calls: int) -> float:
            order.append(name)
            return 10e-3 if name == "slow" else 5e-3

        return run

    comparison = harness.interleave({"slow": block("slow"), "fast": block("fast")}, 0.0)
    assert comparison.ratios("fast") == {"slow": harness.Spread(2.0, 2.0, 2.0)}
    timed = order[-2 * harness.MIN_ROUNDS :]
    assert timed == (["slow", "fast", "fast", "slow"] * harness.MIN_ROUNDS)[: len(timed)]


@pytest.mark.parametrize("floor_seconds", [1e-9, 1e3])
def test_the_limit_is_the_larger_of_memory_and_overhead(floor_seconds: float) -> None:
    """And memory's is of a copy that has taken its turn among the peers."""
    plan = sections.Plan(("gaussian_kl",), "cpu", None, True, 0.01, 0.01, 0.01, (peers.OURS,))
    empty = {"seconds": {floor.EMPTY: harness.Spread(*[floor_seconds] * 3)}}
    floors = [{"op": "gaussian_kl", "direction": "both", **empty}]
    task = sections.Task("comparisons", "gaussian_kl", TINY, "float32", 1)
    with harness.threads(1):
        work = sections.make(plan, task)
        (row,) = sections.rows(plan, task, work, sections.Limits({1: 1e9}, floors))
    assert list(row["seconds"]) == [peers.OURS]
    if floor_seconds < 1:
        assert 1e8 < row["copy_bandwidth"] < 1e13
        assert row["limit_seconds"] == pytest.approx(row["least_bytes"] / row["copy_bandwidth"])
    else:
        assert row["copy_bandwidth"] is None and row["limit_seconds"] == floor_seconds
    assert row["of_limit"] == row["limit_seconds"] / row["seconds"][peers.OURS].middle


def test_a_limit_by_memory_that_is_not_known() -> None:
    assert limit.seconds(None, 1e9) is None and limit.seconds(1000, None) is None


def test_the_bandwidth_of_a_copy_counts_reads_and_writes() -> None:
    with harness.threads(1):
        assert 1e8 < limit.copy("cpu", True).bandwidth(0.0) < 1e13


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if "backward" in op.directions])
def test_the_empty_function_has_the_shapes_of_the_op(name: str) -> None:
    work = Workload(OPS[name], TINY, Setting(), [peers.OURS])
    work.add_empty()
    inputs = work.copies[0]
    ours, empty = (work.functions[peer](*inputs.arguments) for peer in (peers.OURS, floor.EMPTY))
    assert [(t.shape, t.dtype) for t in ours] == [(t.shape, t.dtype) for t in empty]
    work.step(floor.EMPTY)(0)
    leaves = work.upstreams[floor.EMPTY][0].arguments
    assert all(t.grad is not None for t in leaves if t.requires_grad)


def test_peers_have_gradients_of_their_own_over_the_same_memory() -> None:
    work = Workload(OPS["negative_elbo"], TINY, Setting(), [peers.OURS, peers.EAGER])
    for peer in (peers.OURS, peers.EAGER):
        work.step(peer)(0)
    ours, eager = (work.upstreams[peer][0].arguments for peer in (peers.OURS, peers.EAGER))
    assert [t.data_ptr() for t in ours] == [t.data_ptr() for t in eager]
    before = [t.grad for t in ours]
    work.step(peers.EAGER)(0)
    assert any(g is not None for g in before)
    assert all(t.grad is g for t, g in zip(ours, before, strict=True))
    work.clear(peers.OURS)
    assert all(t.grad is None for t in ours) and any(t.grad is not None for t in eager)


def test_each_stage_of_a_small_call_is_timed() -> None:
    work = stages.workload(Setting("cpu", torch.float32, "cpu"))
    took = stages.measure(work, stages.stages(work), 0.02)
    assert len(took.rounds) == 5 and all(took.seconds(name).low > 0 for name in took.rounds)
    (_, first, added), *more = stages.rows(took)
    assert added is None
    assert first + sum(each for _, _, each in more) == pytest.approx(more[-1][1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_an_op_is_timed_in_compiled_code_as_well() -> None:
    name, took = compiled_callers.measure("gaussian_kl", 0.02)
    assert name == "`gaussian_kl` 128x20"
    assert list(took.rounds) == [peers.OURS, peers.COMPILED, compiled_callers.COMPILED_OURS]


@pytest.mark.parametrize("out", [None, "given.json"])
def test_a_run_that_breaks_off_keeps_what_it_has(
    out: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the results of the run before, until one is through."""
    stored = tmp_path / f"{machine.slug(machine.describe(Setting()))}.json"
    stored.write_text("of the run before")
    partial = tmp_path / (out or f"{stored.name}.partial")
    breaks = True

    def measure(*arguments: Any) -> Any:
        keep, results = arguments[-1], {"comparisons": ["one"], "targets": []}
        keep(results)
        results["comparisons"].append("two")
        keep(results)
        if breaks:
            raise KeyboardInterrupt
        return results

    monkeypatch.setattr(run, "FOLDER", tmp_path)
    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(run.report, "write", lambda _: "the document")
    monkeypatch.setattr(
        sys, "argv", ["bench.run", *(["--out", str(tmp_path / out)] if out else [])]
    )
    with pytest.raises(KeyboardInterrupt):
        run.main()
    assert json.loads(partial.read_text())["comparisons"] == ["one", "two"]
    assert stored.read_text() == "of the run before"
    assert f"until then: {partial}" in capsys.readouterr().out

    breaks = False
    run.main()
    assert "until then" not in capsys.readouterr().out
    final = partial if out else stored
    assert json.loads(final.read_text())["comparisons"] == ["one", "two"]
    assert set(tmp_path.iterdir()) == {stored, final}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_works_are_prepared_side_by_side(capfd: pytest.CaptureFixture[str]) -> None:
    """And measured in turn: the rows are those of one process, but for the times."""
    plan = sections.Plan(("noise",), "cpu", None, True, 0.01, 0.01, 0.01)
    limits = sections.Limits({}, [])
    tasks = sections.tasks(plan, ("comparisons", "curves"))
    assert [task.section for task in tasks] == ["comparisons", "curves"]
    assert list(ahead.rows_of(plan, [], limits)) == []
    wrong = tasks[0]._replace(name="nothing")
    found: list[Any] = []
    with pytest.raises(RuntimeError, match="nothing"):  # after the others
        found.extend(ahead.rows_of(plan, [wrong, *tasks], limits, processes=2))
    assert "nothing" in capfd.readouterr().out
    in_turn = list(sections.in_turn(plan, tasks, limits))

    def without_times(rows: list[sections.Row]) -> list[sections.Row]:
        times = ("rounds", "seconds", "ratios", "compile_seconds")
        return [{k: v for k, v in row.items() if k not in times} for row in rows]

    for (task, rows), (same, expected) in zip(found, in_turn, strict=True):
        assert task == same and without_times(rows) == without_times(expected)
        for row in rows:
            assert row["seconds"].keys() >= {peers.OURS, peers.EAGER, peers.COMPILED}
            assert row["compile_seconds"][peers.COMPILED] > 0


def test_what_was_prepared_is_checked_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def check(self) -> None:
            raise AssertionError("off by 1")

    plan = sections.Plan(("noise",), "cpu", None, True, 0.01, 0.01, 0.01)
    (task,) = sections.tasks(plan, ("comparisons",))
    monkeypatch.setattr(ahead, "rows", lambda *_: pytest.fail("was timed"))
    with pytest.raises(AssertionError, match="off by 1"):
        ahead._measure(plan, task, Wrong(), sections.Limits({}, []))


def test_inputs_do_not_stay_in_the_last_level_cache() -> None:
    cache = device.last_level_cache("cpu")
    assert cache >= MEGABYTE
    for bytes_each in (4 * MEGABYTE, 64 * MEGABYTE):
        assert (device.copies_of(bytes_each, "cpu") - 1) * bytes_each >= 2 * cache - bytes_each
    assert device.copies_of(1000, "cpu") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets its high-water mark")
def test_the_growth_of_the_high_water_mark() -> None:
    """Freed at once, so that only a high-water mark sees it, and seen again in a second call."""
    for _ in range(2):
        grown = memory.growth(lambda: torch.ones(16 * MEGABYTE), Setting())
        assert 60 * MEGABYTE < grown < 90 * MEGABYTE
    assert memory.growth(lambda: None, Setting()) < 4 * MEGABYTE


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets its high-water mark")
def test_peak_memory_in_a_process_of_its_own() -> None:
    """z and two gradients of 8 MiB each, and eager's intermediate results besides."""
    size = Size(1024, 2048, 12)
    with harness.threads(1):
        ours, eager = (
            memory.peak("sample_kl", size, Setting(), peer) for peer in (peers.OURS, peers.EAGER)
        )
    assert 20 * MEGABYTE < ours < 32 * MEGABYTE < eager


def test_calls_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else filling new memory would be a call of its own.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    matrix = torch.ones(64, 64)
    assert counts.calls(lambda _: matrix.sin()) == 1
    assert counts.calls(lambda _: matrix.sin().cos()) == 2
    assert counts.calls(lambda _: None) == 0


def test_the_shares_of_a_step() -> None:
    matrix, vector = torch.ones(512, 512), torch.ones(4)
    products = counts.shares(lambda _: matrix @ matrix)
    others = counts.shares(lambda _: vector.add(1))
    assert 0 < products.outside_matrix_products < 0.5
    assert others == (1.0, 0.0)


def test_the_share_of_the_optimiser() -> None:
    weight = torch.ones(512, 512, requires_grad=True)
    optimizer = torch.optim.Adam([weight])

    def step(_: int) -> None:
        weight.grad = weight.detach() @ weight.detach()
        optimizer.step()

    shares = counts.shares(step)
    assert 0 < shares.optimiser <= shares.outside_matrix_products < 1
