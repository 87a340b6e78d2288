"""Writes the pages of what was measured: ``python -m bench.report [FILES]``, as ``bench.run`` does.

A page a machine in ``docs/performance/``, whole, from the files of results named or all that are
kept, and each one's chart and table in ``docs/performance.md``. ``put`` fills the method's page.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from bench import figures, gpu_report, machine, results, tables
from bench.device import Setting
from bench.results import ROOT, Results

DOCS = ROOT / "docs"
METHOD = DOCS / "performance" / "method.md"
WRITTEN = "<!-- Written by `python -m bench.report`: change `bench/` or the results, not this. -->"


def _links(pictures: dict[str, Path], folder: str) -> list[str]:
    return [
        f"![{figures.PICTURES[name][0]}]({folder}/{path.name})" for name, path in pictures.items()
    ]


def page(one: Results, path: Path, check: gpu_report.Check, pictures: dict[str, Path]) -> str:
    """All that was measured on a machine; ``check`` is empty where no GPU was checked."""
    path = path.resolve()
    source = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    on_gpu = one["machine"]["accelerator"] is not None
    sections = [(section, one) for section in tables.SECTIONS if not (on_gpu and section.of_cpu)]
    sections += [(section, check) for section in gpu_report.SECTIONS if on_gpu]
    made = {section: section.table(given) for section, given in sections}
    missing = [section.title for section, text in made.items() if not text]
    parts = [WRITTEN, f"# {machine.title(one['machine'])}", textwrap.fill(tables.MEASURES, 100)]
    parts += [tables.machine(one, source), *([gpu_report.about(check)] if check else [])]
    parts += _links(pictures, "../figures")
    for section, text in made.items():
        if text:
            parts += [f"## {section.title}", textwrap.fill(section.says, 100), text]
    parts += [f"Not measured on this machine: {'; '.join(missing)}."] if missing else []
    return "\n\n".join(parts) + "\n"


def _summary(one: Results, stem: str, chart: list[str]) -> list[str]:
    """What a person decides by."""
    about = f"torch {one['machine']['torch']}, {one['date']}; [all tables](performance/{stem}.md)"
    return [f"**{machine.title(one['machine'])}** ({about})", *chart, tables.decides(one)]


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


def put(named: dict[str, str], document: Path = METHOD) -> Path:
    """``fill`` on the document's file."""
    document.write_text(fill(document.read_text(), named))
    return document


def put_of_one_core(name: str, text: str) -> None:
    """Puts a table measured on one core, and the machine's name beneath it, and prints both."""
    where = machine.describe(Setting())
    made = f"On one core of {where['device']}, torch {where['torch']}."
    print(f"{text}\n{made}")
    print(f"wrote {put({name: text, f'{name}-machine': made})}")


def write(paths: Sequence[Path], docs: Path = DOCS) -> list[Path]:
    """The pages, written again; their pictures stand in ``figures`` beside them."""
    if not paths:
        raise ValueError("there are no results to write tables of")
    checks = {check["machine"]["device"]: check for check in gpu_report.stored()}
    written: list[Path] = []
    summaries: list[str] = []
    for path in paths:
        one = results.load(path)
        pictures = figures.draw(one, path.stem, docs / "figures")
        chart = {name: pictures.pop(name) for name in [figures.DECIDES] if name in pictures}
        summaries += _summary(one, path.stem, _links(chart, "figures"))
        check = checks.get(one["machine"]["accelerator"], {})
        written.append(docs / "performance" / f"{path.stem}.md")
        written[-1].write_text(page(one, path, check, pictures))
    return [*written, put({"decides": "\n\n".join(summaries)}, docs / "performance.md")]


if __name__ == "__main__":
    print("wrote", *write([Path(name) for name in sys.argv[1:]] or results.stored()))
