"""Says what got slower beyond the spread: ``python bench/compare.py OLD NEW``, before a merge.

OLD and NEW are files of results of one machine. A row is slower where both hold:

- the quartiles of our times lie apart, and the median grew by more than ``--at-least``;
- so do the quartiles of the ratio to eager PyTorch, measured in turn with ours: a machine that was
  busier for one of the runs slows both alike. Where no ratio was measured, the times decide.

The exit status is 1 where something got slower, and 2 where the files cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

if __package__ in (None, ""):  # run as a file: the package is in the folder above
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import results
from bench.peers import EAGER, OURS

SLOWER, INCOMPARABLE = 1, 2
AT_LEAST = 0.03  # of the median; below it lies what the layout of a program in memory makes
KEY = ("op", "size", "dtype", "direction", "threads")
SAME = ("device", "accelerator", "backend", "cores", "instruction_set")  # of the machine


class Change(NamedTuple):
    """Of one row, new against old: quartiles of our seconds and of the ratio to eager."""

    what: str
    old: Sequence[float]
    new: Sequence[float]
    old_ratio: Sequence[float] | None
    new_ratio: Sequence[float] | None

    @property
    def growth(self) -> float:
        return self.new[1] / self.old[1] - 1

    def slower(self, at_least: float) -> bool:
        if self.growth <= at_least or self.new[0] <= self.old[2]:
            return False
        if self.old_ratio is None or self.new_ratio is None:
            return True
        return self.new_ratio[2] < self.old_ratio[0]

    def faster(self, at_least: float) -> bool:
        return Change(self.what, self.new, self.old, self.new_ratio, self.old_ratio).slower(
            at_least
        )

    def __str__(self) -> str:
        old, new = (1e6 * self.old[1], 1e6 * self.new[1])
        text = f"{self.what}: {old:.1f} µs to {new:.1f} µs ({self.growth:+.1%})"
        if self.old_ratio is not None and self.new_ratio is not None:
            text += f", {EAGER} ÷ ours {self.old_ratio[1]:.2f} to {self.new_ratio[1]:.2f}"
        return text


def _by_key(of: results.Results) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(row[part] for part in KEY): row for row in results.rows(of)}


def changes(old: results.Results, new: results.Results) -> tuple[list[Change], list[str]]:
    """Of the rows in both, and the names of those that NEW no longer has.

    Raises ValueError where the machines differ, or there is no row in both.
    """
    for part in SAME:
        before, after = old["machine"][part], new["machine"][part]
        if before != after:
            raise ValueError(f"the files are of different machines: {part} {before}, {after}")
    before_rows, after_rows = _by_key(old), _by_key(new)
    both = [key for key in before_rows if key in after_rows]
    if not both:
        raise ValueError("the files have no row in common")
    found = [_change(key, before_rows[key], after_rows[key]) for key in both]
    return found, [_what(key) for key in before_rows if key not in after_rows]


def _what(key: tuple[Any, ...]) -> str:
    *words, threads = key
    return f"{' '.join(words)}, {threads} thread{'s' if threads != 1 else ''}"


def _change(key: tuple[Any, ...], old: dict[str, Any], new: dict[str, Any]) -> Change:
    seconds = (row["seconds"][OURS] for row in (old, new))
    ratios = (row["ratios"].get(EAGER) for row in (old, new))
    return Change(_what(key), *seconds, *ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python bench/compare.py", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--at-least", type=float, default=AT_LEAST, help="default %(default)s")
    options = parser.parse_args(arguments)
    try:
        found, gone = changes(results.load(options.old), results.load(options.new))
    except (OSError, ValueError) as error:
        print(f"cannot compare: {error}", file=sys.stderr)
        return INCOMPARABLE
    slower = [change for change in found if change.slower(options.at_least)]
    faster = [change for change in found if change.faster(options.at_least)]
    for title, lines in (("slower", slower), ("faster", faster), ("no longer measured", gone)):
        for line in lines:
            print(f"{title}: {line}")
    print(f"{len(slower)} of {len(found)} rows are slower, {len(faster)} are faster")
    return SLOWER if slower else 0


if __name__ == "__main__":
    sys.exit(main())
