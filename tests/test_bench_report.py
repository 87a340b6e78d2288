"""``bench.report``: the tables and pictures of results, of this schema and the first."""

from __future__ import annotations

import json
import re
from pathlib import Path

import bench_folder
import made_up_results
import pytest

from bench import figures, peers, report, results, tables, targets

DOCS = bench_folder.ROOT / "docs"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "test-machine.json"
    path.write_text(json.dumps(made_up_results.results()))
    return path


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with the page that is filled, and room for those that are written whole."""
    (tmp_path / "docs" / "performance").mkdir(parents=True)
    (tmp_path / "docs" / "performance.md").write_text((DOCS / "performance.md").read_text())
    return tmp_path / "docs"


def test_everything_that_was_measured_is_on_the_page(path: Path, docs: Path) -> None:
    page, summary = report.write([path], docs)
    assert (page.name, summary.name) == ("test-machine.md", "performance.md")
    text = page.read_text()
    assert text.startswith(report.WRITTEN) and "Not measured" not in text
    for section in tables.SECTIONS:
        assert f"## {section.title}\n" in text
    assert "| `sample_kl` 128x20 | **4.00** (3.92 to 4.08) | **2.00** (1.96 to 2.04) |" in text
    assert "torch.distributions 5.00 | 90.0 µs | 50% | 2.0 s |" in text
    assert "20.0 GB/s on 2 threads, 10.0 GB/s on 1 thread" in text
    assert "pythae 0.1.2" in text and "diffusers is not installed" in text and "2026-01-31" in text
    assert "| `elbo` 4096x128+3072 | **3.00** | 1.0 MiB | 3.0 MiB | – |" in text


def test_a_person_decides_by_few_rows(path: Path, docs: Path) -> None:
    text = report.write([path], docs)[-1].read_text()
    table = text.split("<!-- begin decides -->")[1].split("<!-- end decides -->")[0]
    assert "[all tables](performance/test-machine.md)" in table
    assert "| work | eager ÷ ours | compiled ÷ ours | ours |" in table
    assert "| `sample_kl` 128x20 | **4.00** (3.92 to 4.08) | **2.00** (1.96 to 2.04) |" in table
    assert "`mlp784` 128x784" in table and "torch.distributions" not in table


def test_the_pictures_are_there_and_small(path: Path, docs: Path) -> None:
    page, summary = (written.read_text() for written in report.write([path], docs))
    for name in figures.PICTURES:
        picture = docs / "figures" / f"test-machine-{name}.png"
        where, folder = (summary, "") if name == figures.DECIDES else (page, "../")
        assert f"]({folder}figures/{picture.name})" in where
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 150_000


def test_several_machines_have_a_page_each(path: Path, docs: Path) -> None:
    other = made_up_results.results()
    other["machine"]["accelerator"] = "Test GPU"
    second = path.with_name("second.json")
    second.write_text(json.dumps(other))
    first, last, summary = (written.read_text() for written in report.write([path, second], docs))
    assert "# Test CPU, 2 cores\n" in first and "# Test GPU\n" in last
    assert summary.index("**Test CPU, 2 cores**") < summary.index("**Test GPU**")
    assert "## Targets" in first and "## Targets" not in last  # they are a CPU's


def test_writing_again_changes_nothing(path: Path, docs: Path) -> None:
    once = [written.read_text() for written in report.write([path], docs)]
    assert [written.read_text() for written in report.write([path], docs)] == once


def test_what_was_not_measured_is_one_line(docs: Path, tmp_path: Path) -> None:
    few = made_up_results.results()
    for name in ("curves", "memory", "counts"):
        del few[name]
    few["comparisons"][0] |= {"of_limit": None, "limit_seconds": None}
    path = tmp_path / "few.json"
    path.write_text(json.dumps(few))
    text = report.write([path], docs)[0].read_text()
    missing = "How it grows; The passes apart; Peak memory; Calls"
    assert text.endswith(f"\nNot measured on this machine: {missing}.\n")
    assert "## Calls" not in text and "| 90.0 µs | – | 2.0 s |" in text


def test_other_files_are_no_results(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"comparisons": []}))
    with pytest.raises(ValueError, match="holds no benchmark results"):
        results.load(other)


def test_the_bandwidths_of_a_run_are_shown() -> None:
    made = made_up_results.results()
    for row, bandwidth in zip(made["curves"], (3e10, None, 4e10), strict=False):
        row["copy_bandwidth"] = bandwidth
    shown = tables.machine(made, "test.json")
    assert "20.0 GB/s on 2 threads at first, 30.0 to 40.0 later, 10.0 GB/s on 1 thread |" in shown


def test_a_peer_that_was_wrong_is_named() -> None:
    made = made_up_results.results()
    made["comparisons"][0]["wrong"] = {"eager": "output 0 by eager is off by 1"}
    shown = tables.machine(made, "test.json")
    assert "pip install it; output 0 by eager is off by 1 |" in shown


def test_every_peer_has_a_colour_of_its_own() -> None:
    names = [peer.name for peer in peers.PEERS]
    assert len({figures._colours(names)[name] for name in names}) == len(names)


def test_kernels_of_an_accelerator_are_counted_with_their_time() -> None:
    made = made_up_results.results()
    counted = made["counts"][0]
    assert "| 10 | 80 | 30% | 20% |" in tables.counts(made)
    counted["kernel_seconds"] = {"vae_fast": 3.5e-4, "eager": 2e-3}
    assert "| 10, 350.0 µs | 80, 2.00 ms |" in tables.counts(made)


def test_markers_must_be_there_once() -> None:
    text = "<!-- begin a -->\nold\n<!-- end a -->"
    assert report.fill(text, {"a": "new \\1"}) == "<!-- begin a -->\nnew \\1\n<!-- end a -->"
    for wrong in ("", text + text):
        with pytest.raises(ValueError, match="must have <!-- begin a -->"):
            report.fill(wrong, {"a": "new"})


def test_the_pages_say_what_the_stored_results_say(docs: Path) -> None:
    written = report.write(results.stored(), docs)
    for page in written:
        stored = DOCS / page.relative_to(docs)
        assert stored.read_text() == page.read_text(), f"{page.name}: run python -m bench.report"
    kept = {page.name for page in (DOCS / "performance").iterdir()} - {report.METHOD.name}
    assert kept == {page.name for page in written[:-1]}
    drawn, shown = ({p.name for p in (d / "figures").glob("*.png")} for d in (docs, DOCS))
    assert drawn <= shown


def test_shares_are_called_by_what_they_are_of() -> None:
    made = made_up_results.results()
    made["targets"] = [["work", targets.LIMIT, "80%", "90%", "reached"]]
    assert "| work | share of a copy's speed | 80% | 90% | reached |" in tables.target_table(made)
    pages = (DOCS / "performance").glob("*.md")
    for page in (DOCS / "performance.md", *pages):
        assert not re.search(r"\blimit\b", page.read_text()), page.name


def test_targets_are_judged_by_what_was_measured() -> None:
    made = made_up_results.results()
    verdicts = {(v.work, v.peer): v for v in targets.judge_all(made)}
    limit = verdicts["negative_elbo 256x12288 float32 both", "limit"]
    assert (limit.wanted, limit.got, limit.outcome) == ("80%", "50%", "not reached")
    eager = verdicts["sample_kl 128x20 float32 both", "eager"]
    assert (eager.wanted, eager.got, eager.outcome) == ("3x", "4.00x", "reached")
    compiled = verdicts["negative_elbo 256x12288 float32 both", "compiled"]
    assert compiled.outcome == "not reached"
    memory = verdicts["elbo 4096x128+3072 float32 peak", targets.MEMORY]
    assert (memory.wanted, memory.got, memory.outcome) == ("≤ 50%", "33%", "reached")
    share = verdicts["mlp784 128x784 step", targets.SHARE]
    assert (share.got, share.outcome) == ("30%", "not reached")
    noise = verdicts["noise, one core", targets.NOISE]
    assert (noise.got, noise.outcome) == ("1.25 ns", "reached")
