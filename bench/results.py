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

_FIRST_STEP = "training_step"  # what the first schema called mlp784


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """Of the first schema, which had one dtype, one compiled peer and no limit."""
    named = {"op": "mlp784"} if row["op"] == _FIRST_STEP else {}
    seconds = row.get("compile_seconds")
    added = {"dtype": "float32", "of_limit": None, "limit_seconds": None, "least_bytes": None}
    return added | row | named | {"compile_seconds": {COMPILED: seconds}}


def upgrade(results: Results) -> Results:
    """Results of any schema as the newest has them; what was not measured stays out."""
    if results.get("schema", 1) >= SCHEMA:
        return results
    return results | {
        "schema": SCHEMA,
        "machine": {"backend": "cpu", "accelerator": None} | results["machine"],
        "peers": {},
        "skipped": {},
        "copy_bandwidth": {},
        "comparisons": [_row(row) for row in results["comparisons"]],
        "floors": [row | {"direction": "both"} for row in results.get("floors", ())],
    }


def load(path: Path) -> Results:
    """Raises ValueError where the file is no results of this program."""
    results = json.loads(path.read_text())
    if not isinstance(results, dict) or "comparisons" not in results:
        raise ValueError(f"{path} holds no benchmark results")
    return upgrade(results)


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
