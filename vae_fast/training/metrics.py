"""``metrics.csv``: a row an epoch."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from vae_fast.training.errors import UserError
from vae_fast.training.reading import parsing, read_bytes, shown
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

LONGEST = 2**28  # bytes: a million rows and more
MOST = 1e15  # an epoch or a step: below that each whole number is a float
# As Python writes floats. A run that diverges has nan and inf in its table.
_NUMBER = re.compile(r"-?(?:[0-9]{1,400}(?:\.[0-9]{1,400})?(?:e[-+]?[0-9]{1,5})?|inf|nan)")


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
        content = read_bytes(path, LONGEST)
    except FileNotFoundError:
        return []
    with parsing(path, "is damaged"):
        text = content[: content.rfind(b"\n") + 1].decode()
        records = list(csv.reader(io.StringIO(text), strict=True))
    if records and tuple(records[0]) != COLUMNS:
        raise UserError(
            f"{path} is damaged: its columns must be {','.join(COLUMNS)}; got {shown(records[0])}"
        )
    rows: list[Row] = []
    before = {"epoch": 0, "step": 0}
    for number, record in enumerate(records[1:], 1):
        row = _row(record)
        # A table grows: a row that is not behind the one before was not written by a run.
        if row is None or any(row[name] <= before[name] for name in before):
            raise UserError(
                f"{path} is damaged: row {number} must have {len(COLUMNS)} numbers, with an epoch "
                f"and a step above those of the row before; got {shown(','.join(record))}"
            )
        before = {name: int(row[name]) for name in before}
        rows.append(row | before)
    return rows


def _row(record: list[str]) -> Row | None:
    """The numbers of a row of the table; None where they cannot be that."""
    if len(record) != len(COLUMNS) or not all(map(_NUMBER.fullmatch, record)):
        return None
    row = {name: float(text) for name, text in zip(COLUMNS, record, strict=True)}
    whole = all(1 <= row[name] <= MOST and row[name].is_integer() for name in ("epoch", "step"))
    return row if whole and 0 <= row["learning_rate"] <= MOST else None


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
