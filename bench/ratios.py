"""Times what there are targets for, and more of the same, and writes the results and the tables.

Takes about five minutes of a machine that does nothing else: ``python -m bench.ratios``. Compiled
code is made afresh, in a folder of its own, so that the compile times are those of a first run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench import floor, harness, instruction_sets, machine, report, targets
from bench.ops import OPS, SIZES
from bench.training_step import BATCHES, TrainingStep
from bench.workload import COMPILED, EAGER, OURS, PEERS, Workload

RESULTS = Path(__file__).resolve().parent / "results"
SECONDS = 1.5  # for a comparison
TRAINING_SECONDS = 5.0  # matrix products vary more, and the ratio is close to 1
QUICK_SECONDS = 0.05
ONE_THREAD = ("sample_kl", "negative_elbo", "training_step")

Made = tuple[str, Workload | TrainingStep, str]


def _workloads(ops: tuple[str, ...]) -> Iterator[Made]:
    """Each is made when it is its turn, and only then."""
    for name in ops:
        if name == "training_step":
            for batch in BATCHES:
                yield name, TrainingStep(batch), "step"
        else:
            for size in SIZES:
                yield name, Workload(OPS[name], size), OPS[name].directions[-1]


def _measure(made: Made, count: int, seconds: float) -> tuple[dict[str, Any], list[Any]]:
    op, workload, direction = made
    comparison = workload.compare(direction, seconds)
    verdicts = targets.judge(op, workload.label, direction, comparison)
    row: dict[str, Any] = {
        "op": op,
        "size": workload.label,
        "direction": direction,
        "threads": count,
        "rounds": len(comparison.rounds[OURS]),
        "compile_seconds": workload.compile_seconds,
        "seconds": {peer: comparison.seconds(peer) for peer in PEERS},
        "ratios": {peer: comparison.ratio(peer, OURS) for peer in (EAGER, COMPILED)},
    }
    shown = "  ".join(
        f"{peer} {low:.2f} {middle:.2f} {high:.2f}"
        for peer, (low, middle, high) in row["ratios"].items()
    )
    print(f"{count} threads  {op} {workload.label} {direction}: {shown}", flush=True)
    return row, verdicts


def _floors(ops: tuple[str, ...], seconds: float) -> list[dict[str, Any]]:
    """The smallest size of each op beside a Function that computes nothing."""
    rows = []
    for name in (name for name in floor.OPS if name in ops):
        workload = Workload(OPS[name], SIZES[0])
        comparison = floor.compare(workload, seconds)
        rows.append(
            {
                "op": name,
                "size": workload.label,
                "seconds": {peer: comparison.seconds(peer) for peer in (OURS, floor.EMPTY)},
            }
        )
    return rows


def _first_compilation() -> float:
    """Seconds that the first compilation of a process takes, whatever is compiled."""
    start = time.perf_counter()
    torch.compile(lambda x: x + 1)(torch.ones(64))
    return time.perf_counter() - start


def run(ops: tuple[str, ...], quick: bool) -> dict[str, Any]:
    rows, verdicts = [], []
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"The machine is busy (load {load:.1f}): other work is in these times.")
    first = _first_compilation()
    for count in sorted({machine.cores(), 1}, reverse=True):
        all_cores = count == machine.cores()
        chosen = ops if all_cores else tuple(name for name in ops if name in ONE_THREAD)
        with harness.threads(count):
            for made in _workloads(chosen):
                seconds = TRAINING_SECONDS if made[0] == "training_step" else SECONDS
                row, judged = _measure(made, count, QUICK_SECONDS if quick else seconds)
                rows.append(row)
                verdicts += judged if all_cores else []
    with harness.threads(machine.cores()):
        floors = _floors(ops, QUICK_SECONDS if quick else SECONDS)
    return {
        "machine": machine.describe(),
        "date": datetime.date.today().isoformat(),
        "load_at_start": load,
        "first_compilation_seconds": first,
        "comparisons": rows,
        "targets": [verdict.row() for verdict in verdicts],
        "floors": floors,
        "noise_ns": instruction_sets.measure_all(QUICK_SECONDS if quick else SECONDS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ratios", description=__doc__)
    names = [*OPS, "training_step"]
    parser.add_argument("ops", nargs="*", choices=[*names, []], help="only these; default all")
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see that it works")
    parser.add_argument("--out", type=Path, help="write the results here, and no tables")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        start = time.perf_counter()
        results = run(tuple(options.ops or names), options.quick)
    print(report.target_table(results))
    print(f"{time.perf_counter() - start:.0f} seconds in all")
    path = options.out or RESULTS / f"{machine.slug(results['machine'])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {path}")
    if options.out is None:
        print(f"wrote {report.write(results, path)}")


if __name__ == "__main__":
    main()
