"""``metrics.csv``: a row an epoch."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from vae_fast.training.errors import UserError
from vae_fast.training.storage import atomic_write

COLUMNS = (
    "epoch",
    "step",
    "learning_rate",
    "train_elbo",
    "train_log_likelihood",
    "train_kl",
    "held_out_elbo",
    "held_out_log_likelihood",
    "held_out_kl",
)
Row = dict[str, float]


def _text(rows: list[Row], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_metrics(path: Path) -> list[Row]:
    """The whole rows of ``path``; none where it does not exist.

    A row that was cut off when the machine went down is left out.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    rows: list[Row] = []
    for record in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])):
        try:
            rows.append({name: float(record[name]) for name in COLUMNS})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: row {len(rows) + 1}: {error}") from error
    for row in rows:
        row["epoch"], row["step"] = int(row["epoch"]), int(row["step"])
    return rows


def start_metrics(path: Path, step: int) -> None:
    """Make ``path`` hold the rows of the epochs that ended by optimiser step ``step``."""
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    atomic_write(path, _text(rows, header=True).encode())


def append_metrics(path: Path, row: Row) -> None:
    """Add one epoch's row."""
    try:
        with open(path, "a") as file:
            file.write(_text([row], header=False))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
