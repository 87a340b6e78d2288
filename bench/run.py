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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import harness, instruction_sets, machine, peers, report, sections, targets
from bench.results import FOLDER, SCHEMA, stored

SECTIONS = ("comparisons", "curves", "memory", "counts", "noise")
SECONDS, CURVE_SECONDS, STEP_SECONDS, QUICK_SECONDS = 1.0, 0.4, 5.0, 0.05


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


def measure(plan: sections.Plan, chosen: Sequence[str]) -> dict[str, Any]:
    """The results of the chosen sections; those of the others are missing."""
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
        }
        if "comparisons" in chosen:
            results["comparisons"] = list(sections.comparisons(plan, limits))
        if "curves" in chosen:
            results["curves"] = list(sections.curves(plan, limits))
        if "memory" in chosen:
            results["memory"] = list(sections.peaks(plan))
        if "counts" in chosen:
            results["counts"] = list(sections.launches(plan))
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
    seconds = (SECONDS, CURVE_SECONDS, STEP_SECONDS)
    if options.quick:
        seconds = (QUICK_SECONDS,) * 3
    keep = keep and not options.quick  # a few rounds are no result
    plan = sections.Plan(names, options.device, options.backend, options.quick, *seconds)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        start = time.perf_counter()
        results = measure(plan, options.sections or chosen)
        results["seconds_in_all"] = time.perf_counter() - start
    for verdict in results["targets"]:
        print("  ".join(verdict))
    print(f"{results['seconds_in_all']:.0f} seconds in all")
    path = options.out or (FOLDER / f"{machine.slug(results['machine'])}.json" if keep else None)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"wrote {path}")
    if options.out is None and keep:
        print(f"wrote {report.write(stored())}")


if __name__ == "__main__":
    main()
