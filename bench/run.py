"""Measures everything and writes the results, the tables and the pictures: ``python -m bench.run``.

Takes some thirty minutes of a machine that does nothing else. Compiled code is made afresh, in a
folder of its own, so that the compile times are those of a first run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bench import ahead, harness, instruction_sets, machine, peers, report, sections, targets
from bench.results import FOLDER, SCHEMA, stored

SECTIONS = ("comparisons", "curves", "memory", "counts", "noise")
# For a comparison, one of a curve, and one of training steps. On an accelerator, which nobody else
# uses meanwhile, they are soon the same again and again.
SECONDS = {"cpu": (1.0, 0.4, 5.0), "accelerator": (0.3, 0.15, 1.0)}
QUICK_SECONDS = 0.05


def _first_compilation() -> float:
    """Seconds that the first compilation of a process takes, whatever is compiled."""
    start = time.perf_counter()
    torch.compile(lambda x: x + 1)(torch.ones(64))
    return time.perf_counter() - start


def _peer_versions(plan: sections.Plan) -> tuple[dict[str, str], dict[str, str]]:
    """Of the installed peers, and why the others were skipped."""
    there, skipped = {}, {}
    for peer in peers.PEERS:
        reason = peers.missing(peer, plan.setting())
        if reason is not None:
            skipped[peer.name] = reason
        elif peer.package is not None:
            there[peer.name] = str(peers.version(peer))
    return there, skipped


def measure(
    plan: sections.Plan,
    chosen: Sequence[str],
    rows_of: Callable[..., Iterator[tuple[sections.Task, list[sections.Row]]]],
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """The results of the chosen sections; those of the others are missing. ``keep`` gets what there
    is after each row, in case the machine is there no longer than that."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"The machine is busy (load {load:.1f}): other work is in these times.")
    versions, skipped = _peer_versions(plan)
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}")
    first = _first_compilation()
    with harness.threads(machine.cores()):
        limits = sections.limits(plan)
        results: dict[str, Any] = {
            "schema": SCHEMA,
            "machine": machine.describe(plan.setting()),
            "date": datetime.date.today().isoformat(),
            "load_at_start": load,
            "quick": plan.quick,
            "peers": versions,
            "skipped": skipped,
            "first_compilation_seconds": first,
            "copy_bandwidth": {str(count): value for count, value in limits.bandwidth.items()},
            "floors": limits.floors,
            "comparisons": [],
            "targets": [],
        }
        results |= {name: [] for name in (*sections.TASKS, "memory") if name in chosen}
        for task, rows in rows_of(plan, sections.tasks(plan, chosen), limits):
            results[task.section] += rows
            keep(results)
        for row in sections.peaks(plan) if "memory" in chosen else ():
            results["memory"].append(row)
            keep(results)
        if "noise" in chosen and plan.device == "cpu":
            results["noise_ns"] = instruction_sets.measure_all(plan.seconds)
    results["targets"] = targets.judge_all(results)
    return results


def _arguments(program: str, description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=description)
    names = peers.OP_NAMES + peers.STEP_NAMES
    parser.add_argument("names", nargs="*", choices=[*names, []], help="only these; default all")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or xpu; default cpu")
    parser.add_argument("--backend", help="of vae_fast; default the best that runs on the device")
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, help="measure only these; default all"
    )
    parser.add_argument("--peers", nargs="+", choices=list(peers.BY_NAME), help="default all")
    parser.add_argument(
        "--ahead", action="store_true",
        help="trace and compile in several processes at once, which then take turns to measure",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a few rounds, to see that it works")
    parser.add_argument("--out", type=Path, help="write the results here, no tables")
    return parser


def main(
    program: str = "python -m bench.run",
    description: str | None = __doc__,
    chosen: Sequence[str] = SECTIONS,
    default: Sequence[str] = peers.OP_NAMES + peers.STEP_NAMES,
    keep: bool = True,
) -> None:
    """Keeps the results for the tables, or only where ``--out`` says to."""
    options = _arguments(program, description).parse_args()
    names = tuple(options.names or default)
    if options.quick and not options.names:
        names = tuple(name for name in names if name in ("sample_kl", "negative_elbo"))
    seconds = SECONDS["cpu" if options.device == "cpu" else "accelerator"]
    if options.quick:
        seconds = (QUICK_SECONDS,) * 3
    stays = keep and not options.quick  # a few rounds are no result
    named = options.peers and (peers.OURS, *options.peers)
    plan = sections.Plan(names, options.device, options.backend, options.quick, *seconds, named)
    wanted = options.sections or chosen
    start = time.perf_counter()
    stored_at = FOLDER / f"{machine.slug(machine.describe(plan.setting()))}.json"
    path = options.out or (stored_at if stays else None)
    # What there is of a run that breaks off, beside the results of the one before.
    partial = options.out or stored_at.with_name(f"{stored_at.name}.partial")

    def write(results: dict[str, Any], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        results["seconds_in_all"] = time.perf_counter() - start
        path.write_text(json.dumps(results, indent=1) + "\n")

    kept = False

    def keep_partial(results: dict[str, Any]) -> None:
        nonlocal kept
        if path is not None:
            write(results, partial)
            kept = True

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        rows_of = ahead.rows_of if options.ahead else sections.in_turn
        try:
            results = measure(plan, wanted, rows_of, keep_partial)
        except BaseException:
            if kept:
                print(f"what was measured until then: {partial}")
            raise
    for verdict in results["targets"]:
        print("  ".join(verdict))
    print(f"{time.perf_counter() - start:.0f} seconds in all")
    if path is not None:
        write(results, path)
        if partial != path:
            partial.unlink(missing_ok=True)
        print(f"wrote {path}")
    if options.out is None and stays:
        print("wrote", *report.write(stored()))


if __name__ == "__main__":
    main()
