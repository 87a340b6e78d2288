"""What ``make gpu-check`` found, kept and shown: ``python -m bench.gpu_report FOLDER``.

Keeps the check in ``bench/results/gpu-check/`` and its suite beside the results of other machines,
one file each a machine. ``python -m bench.report`` then writes the pages again: a check is on the
page of the suite of its GPU.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import machine, tables
from bench.results import FOLDER
from bench.tables import Section, pivot, show_time, table

CHECKS = FOLDER / "gpu-check"
Check = dict[str, Any]


def _short(kernel: str) -> str:
    """A kernel's name without namespaces, types of arguments, and what templates make of it."""
    plain = re.sub(r"\((?:anonymous namespace|int|bool)\)", "", kernel)
    name = re.split(r"[<(]", plain, maxsplit=1)[0]
    return name.split("::")[-1].split()[-1]


def about(check: Check) -> str:
    found = check["machine"]
    major, minor = found["capability"]
    return table(
        ("", "checked on"),
        (
            ("GPU", f"{found['device']}, compute capability {major}.{minor}, "
                    f"{found['processors']} multiprocessors"),
            ("memory", tables.show_bytes(found["memory_bytes"])),
            ("versions", f"driver {found['driver']}, CUDA {found['cuda']}, torch {found['torch']}, "
                         f"triton {found['triton']}, vae_fast {found['vae_fast']}"),
            ("Python", f"{found['python']}, {found['system']}"),
            ("installation", check["installation"]),
            ("date", check["date"]),
        ),
    )  # fmt: skip


def tests(check: Check) -> str:
    counts = ("passed", "failed", "skipped", "late")
    rows = (check.get("tests") or {}).items()
    return table(
        ("tests", *counts[:3], "not run for want of time"),
        ((name, *(str(each[count]) for count in counts)) for name, each in rows),
    )


def bandwidth(check: Check) -> str:
    """A row for an op, a pass, a dtype and a shape; what each backend reaches, and of a copy's."""
    lines: dict[tuple[str, ...], dict[Any, str]] = {}
    figures = check.get("figures") or {}
    for backend in figures:
        for row in figures[backend]["bandwidth"]:
            shape = " × ".join(f"{size:,}" for size in row["shape"])
            key = f"`{row['op']}`", row["direction"], row["dtype"], shape
            shown = f"{row['gb_per_s']:.0f} GB/s, **{row['of_copy']:.0%}**"
            lines.setdefault(key, {})[backend] = shown
    return pivot(("op", "pass", "dtype", "shape"), lines, {name: name for name in figures})


def ratios(check: Check) -> str:
    lines: dict[tuple[str, ...], dict[Any, str]] = {}
    for backend, figures in (check.get("figures") or {}).items():
        for row in figures["ratios"]:
            key = f"`{row['op']}` {row['size']}", backend, show_time(row["seconds"]["vae_fast"][1])
            lines[key] = {peer: f"**{ratio[1]:.2f}**" for peer, ratio in row["ratios"].items()}
    peers = {peer: f"{peer} ÷ ours" for cells in lines.values() for peer in cells}
    return pivot(("work, forward and backward", "backend", "ours"), lines, peers)


def _stage_rows(made: Sequence[Check]) -> Iterable[tuple[str, ...]]:
    for place, (name, *_) in enumerate(made[0]["stages"]):
        cells = []
        for each in made:
            _, whole, more = each["stages"][place]
            cells += [show_time(whole), "" if more is None else show_time(more)]
        yield name, *cells
    replays = [[show_time(each["replay_seconds"]), ""] for each in made]
    yield "the whole, replayed as a CUDA graph", *(cell for pair in replays for cell in pair)


def stages(check: Check) -> str:
    made = check.get("stages") or []
    columns = [f"{each['backend']}, {what}" for each in made for what in ("in all", "for it")]
    return table(("with", *columns), _stage_rows(made) if made else ())


def kernels(check: Check) -> str:
    return table(
        ("backend", "kernel", "of a call", "time"),
        (
            (each["backend"], f"`{_short(name)}`", str(calls), show_time(seconds))
            for each in check.get("stages") or ()
            for name, calls, seconds in each["kernels"]
            if calls > 0  # else of the gradients' first accumulation
        ),
    )


SECTIONS = (
    Section("Large tensors, beside a copy", bandwidth, "The least bytes that an op has to move, "
            "over its time between two events of the device; and its share of a copy's speed."),
    Section("Each backend, beside eager and compiled code", ratios, "How many times as long as "
            "each backend of this package the peers take for two large calls and a small one."),
    Section("A small call by stages", stages, "Forward and backward of `sample_kl`, the device "
            "waited for in each call; each row does what the one above it does, and more."),
    Section("A small call's kernels", kernels, "What they take on the device, in the same call."),
    Section("Tests on this GPU", tests, "How many there was time for, and how they ended."),
)  # fmt: skip


def stored() -> list[Check]:
    return [json.loads(path.read_text()) for path in sorted(CHECKS.glob("*.json"))]


def keep(folder: Path) -> list[Path]:
    """The files of ``gpu-check.json`` in ``folder``, among those of the other machines."""
    check = json.loads((folder / "gpu-check.json").read_text())
    suite = check.pop("suite", None)
    CHECKS.mkdir(parents=True, exist_ok=True)
    kept = {CHECKS / f"{machine.file_name(check['machine']['device'])}.json": check}
    if suite is not None:
        kept[FOLDER / f"{machine.slug(suite['machine'])}.json"] = suite
    for path, what in kept.items():
        path.write_text(json.dumps(what, indent=1) + "\n")
    return list(kept)


def main() -> None:
    for folder in sys.argv[1:]:
        for path in keep(Path(folder)):
            print(f"wrote {path}")
    print("write the pages again with: python -m bench.report")


if __name__ == "__main__":
    main()
