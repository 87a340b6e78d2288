"""Files of results: ``bench/results/``, one a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.peers import COMPILED, EAGER, OURS

Results = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "bench" / "results"
SCHEMA = 2


def load(path: Path) -> Results:
    """Raises ValueError where the file is no results of this program."""
    results: Results = json.loads(path.read_text())
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise ValueError(f"{path} holds no benchmark results")
    return results


def stored() -> list[Path]:
    return sorted(FOLDER.glob("*.json"))


def rows(results: Results) -> list[dict[str, Any]]:
    """All that were timed: shapes, steps and curves."""
    return [*results["comparisons"], *results.get("curves", ())]


def peers_in(rows: list[dict[str, Any]]) -> list[str]:
    """Beside ours: eager and compiled first, then the others as they come."""
    found = dict.fromkeys(peer for row in rows for peer in row["seconds"])
    first = [peer for peer in (EAGER, COMPILED) if peer in found]
    return [*first, *(peer for peer in found if peer not in (OURS, EAGER, COMPILED))]
