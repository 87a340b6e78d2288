"""What ``make gpu-check`` found, kept and shown: ``python -m bench.gpu_report FOLDER``.

Keeps the check in ``bench/results/gpu-check/`` and its suite beside the results of other machines,
one file each a machine. ``python -m bench.report`` then writes ``docs/performance.md`` again.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import machine, tables
from bench.results import FOLDER
from bench.tables import show_time, table

CHECKS = FOLDER / "gpu-check"
NOT_CHECKED = "No GPU has been checked yet."
Check = dict[str, Any]


def _backends(check: Check) -> list[str]:
    return list(check.get("figures") or {})


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
    return table(
        ("tests", "passed", "failed", "skipped", "not run for want of time"),
        (
            (name, *(str(each[count]) for count in counts))
            for name, each in (check.get("tests") or {}).items()
        ),
    )


def bandwidth(check: Check) -> str:
    """A row for an op, a pass, a dtype and a shape; what each backend reaches, and of a copy's."""
    lines: dict[tuple[str, str, str, str], dict[str, str]] = {}
    for backend in _backends(check):
        for row in check["figures"][backend]["bandwidth"]:
            shape = " × ".join(f"{size:,}" for size in row["shape"])
            key = row["op"], row["direction"], row["dtype"], shape
            shown = f"{row['gb_per_s']:.0f} GB/s, **{row['of_copy']:.0%}**"
            lines.setdefault(key, {})[backend] = shown
    names = _backends(check)
    return table(
        ("op", "pass", "dtype", "shape", *names),
        (
            (f"`{op}`", direction, dtype, shape, *(cells.get(name, "–") for name in names))
            for (op, direction, dtype, shape), cells in lines.items()
        ),
    )


def ratios(check: Check) -> str:
    figures = check.get("figures") or {}
    rows = [(backend, row) for backend in figures for row in figures[backend]["ratios"]]
    names = list(dict.fromkeys(peer for _, row in rows for peer in row["ratios"]))
    return table(
        ("work, forward and backward", "backend", "ours", *(f"{name} ÷ ours" for name in names)),
        (
            (
                f"`{row['op']}` {row['size']}",
                backend,
                show_time(row["seconds"]["vae_fast"][1]),
                *(f"**{row['ratios'][name][1]:.2f}**" if name in row["ratios"] else "–"
                  for name in names),
            )
            for backend, row in rows
        ),
    )  # fmt: skip


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
    if not made:
        return tables.NOT_MEASURED
    names = [each["backend"] for each in made]
    columns = [f"{name}, {what}" for name in names for what in ("in all", "for it")]
    return table(("with", *columns), _stage_rows(made))


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


# By the markers of the document.
TABLES: dict[str, Callable[[Check], str]] = {
    "gpu-machine": about,
    "gpu-tests": tests,
    "gpu-bandwidth": bandwidth,
    "gpu-ratios": ratios,
    "gpu-stages": stages,
    "gpu-kernels": kernels,
}


def stored() -> list[Path]:
    return sorted(CHECKS.glob("*.json"))


def blocks(paths: Iterable[Path]) -> dict[str, str]:
    """The text of each place in the document; checks stand one below the other."""
    checks = {path.stem: json.loads(path.read_text()) for path in paths}
    headed = {
        name: [part for stem, check in checks.items() for part in (f"**`{stem}`**", make(check))]
        for name, make in TABLES.items()
    }
    return {name: "\n\n".join(parts) or NOT_CHECKED for name, parts in headed.items()}


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
    print("write the page again with: python -m bench.report")


if __name__ == "__main__":
    main()
