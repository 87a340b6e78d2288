"""The tables of ``docs/performance.md``, between its markers, from a file of results.

``python -m bench.report bench/results/<machine>.json`` writes them again; ``bench.ratios`` does so
by itself.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.workload import COMPILED, EAGER, OURS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "performance.md"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    align = ["---", *("---:" for _ in header[1:])]
    lines = [header, align, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _spread(values: list[float]) -> str:
    low, middle, high = values
    return f"**{middle:.2f}** ({low:.2f} to {high:.2f})"


def machine_table(results: dict[str, Any], source: str) -> str:
    machine = results["machine"]
    return table(
        ("", "measured on"),
        (
            ("processor", f"{machine['device']}, {machine['cores']} cores"),
            ("kernels", f"{machine['instruction_set']}, {machine['compiler']}"),
            ("compiler flags", f"`{machine['flags']}`"),
            ("versions", f"vae_fast {machine['vae_fast']}, torch {machine['torch']}"),
            ("Python", f"{machine['python']}, {machine['system']}"),
            ("date", results["date"]),
            ("load before the run", f"{results['load_at_start']:.1f}"),
            ("script, results", f"`python -m bench.ratios`, `{source}`"),
        ),
    )


def target_table(results: dict[str, Any]) -> str:
    return table(("work", "peer", "at least", "got", "target"), results["targets"])


def ratio_table(results: dict[str, Any], threads: int) -> str:
    """Ratios first, then the times of one call and what compiling took."""
    rows = [
        (
            f"`{row['op']}` {row['size']}",
            _spread(row["ratios"][EAGER]),
            _spread(row["ratios"][COMPILED]),
            *(_time(row["seconds"][peer][1]) for peer in (OURS, EAGER, COMPILED)),
            f"{row['compile_seconds']:.1f} s",
        )
        for row in results["comparisons"]
        if row["threads"] == threads
    ]
    header = ("work", "eager ÷ ours", "compiled ÷ ours", "ours", EAGER, COMPILED, "compiling")
    return table(header, rows)


def noise_table(results: dict[str, Any]) -> str:
    times = results["noise_ns"]
    rows = ((name, f"{ns:.2f}", f"{times['torch.randn'] / ns:.1f}") for name, ns in times.items())
    return table(("", "ns a normal", "times as fast as `torch.randn`"), rows)


def compile_line(results: dict[str, Any]) -> str:
    seconds = results["first_compilation_seconds"]
    return f"The first compilation of a process takes {seconds:.0f} s more, whatever is compiled."


def tables(results: dict[str, Any], source: str) -> dict[str, str]:
    return {
        "machine": machine_table(results, source),
        "targets": target_table(results),
        "all-threads": ratio_table(results, results["machine"]["cores"]),
        "one-thread": ratio_table(results, 1),
        "compiling": compile_line(results),
        "noise": noise_table(results),
    }


def insert(blocks: dict[str, str]) -> Path:
    """Puts each block between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of the document."""
    text = DOCUMENT.read_text()
    for name, content in blocks.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"{DOCUMENT} must have {begin} and {end} once")
        block = f"{begin}\n{content}\n{end}"
        text = pattern.sub(block.replace("\\", r"\\"), text)
    DOCUMENT.write_text(text)
    return DOCUMENT


def write(results: dict[str, Any], path: Path) -> Path:
    """Writes all tables of these results into the document."""
    return insert(tables(results, path.resolve().relative_to(ROOT).as_posix()))


if __name__ == "__main__":
    given = Path(sys.argv[1])
    print(f"wrote {write(json.loads(given.read_text()), given)}")
