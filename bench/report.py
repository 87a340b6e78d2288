"""Writes the tables and pictures of ``docs/performance.md`` from one or more files of results.

``python -m bench.report bench/results/<machine>.json ...``; without arguments, from all that are
kept there. ``bench.run`` does so by itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import figures, gpu_report, machine, results, tables
from bench.device import Setting
from bench.results import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
FIGURES = ROOT / "docs" / "figures"


def _name(path: Path) -> str:
    """As the document calls the file."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def blocks(given: dict[Path, results.Results], folder: Path = FIGURES) -> dict[str, str]:
    """The text of each place in the document; several machines stand one below the other."""
    texts: dict[str, list[str]] = {name: [] for name in ("machine", "figures", *tables.TABLES)}
    for path, one in given.items():
        heading = [f"**{machine.title(one['machine'])}**"] if len(given) > 1 else []
        for name, table in tables.TABLES.items():
            texts[name] += [*heading, table(one)]
        texts["machine"] += [*heading, tables.machine(one, _name(path))]
        pictures = figures.draw(one, path.stem, folder)
        links = [f"![{what}](figures/{picture.name})" for what, picture in pictures.items()]
        texts["figures"] += [*heading, *(links or [tables.NOT_MEASURED])]
    return {name: "\n\n".join(parts) for name, parts in texts.items()}


def fill(text: str, named: dict[str, str]) -> str:
    """``text`` with each block between its ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.

    Raises ValueError where a pair of markers is not there once.
    """
    for name, block in named.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"the document must have {begin} and {end} once")
        replacement = f"{begin}\n{block}\n{end}"
        text = pattern.sub(replacement.replace("\\", r"\\"), text)
    return text


def put(named: dict[str, str], document: Path = DOCUMENT) -> Path:
    """``fill`` on the document's file."""
    document.write_text(fill(document.read_text(), named))
    return document


def put_of_one_core(name: str, text: str) -> None:
    """Puts a table measured on one core, and the machine's name beneath it, and prints both."""
    where = machine.describe(Setting())
    made = f"On one core of {where['device']}, torch {where['torch']}."
    print(f"{text}\n{made}")
    print(f"wrote {put({name: text, f'{name}-machine': made})}")


def write(paths: Sequence[Path], document: Path = DOCUMENT) -> Path:
    """The document, written again; its pictures stand in ``figures`` beside it."""
    given = {path: results.load(path) for path in paths}
    if not given:
        raise ValueError("there are no results to write tables of")
    shown = blocks(given, document.parent / "figures") | gpu_report.blocks(gpu_report.stored())
    return put(shown, document)


if __name__ == "__main__":
    print(f"wrote {write([Path(name) for name in sys.argv[1:]] or results.stored())}")
