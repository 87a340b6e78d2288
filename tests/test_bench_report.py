"""``bench.report``: the tables and pictures of results, of this schema and the first."""

from __future__ import annotations

import json
from pathlib import Path

import bench_folder
import made_up_results
import pytest

from bench import figures, peers, report, results, tables, targets

DOCUMENT = bench_folder.ROOT / "docs" / "performance.md"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "test-machine.json"
    path.write_text(json.dumps(made_up_results.results()))
    return path


@pytest.fixture
def document(tmp_path: Path) -> Path:
    copy = tmp_path / "docs" / "performance.md"
    copy.parent.mkdir()
    copy.write_text(DOCUMENT.read_text())
    return copy


def test_every_place_of_the_document_is_filled(path: Path, document: Path) -> None:
    report.write([path], document)
    text = document.read_text()
    for name in ("machine", "figures", *tables.TABLES):
        block = text.split(f"<!-- begin {name} -->")[1].split(f"<!-- end {name} -->")[0].strip()
        assert block and block != tables.NOT_MEASURED, name
    assert "| `sample_kl` 128x20 | **4.00** (3.92 to 4.08) | **2.00** (1.96 to 2.04) |" in text
    assert "torch.distributions 5.00 | 90.0 µs | 50% | 2.0 s |" in text
    assert "20.0 GB/s on 2 threads, 10.0 GB/s on 1 thread" in text
    assert "pythae 0.1.2" in text and "diffusers is not installed" in text and "2026-01-31" in text
    assert "| `elbo` 4096x128+3072 | **3.00** | 1.0 MiB | 3.0 MiB | – |" in text


def test_the_pictures_are_there_and_small(path: Path, document: Path) -> None:
    report.write([path], document)
    text = document.read_text()
    for name in figures.PICTURES:
        picture = document.parent / "figures" / f"test-machine-{name}.png"
        assert f"](figures/{picture.name})" in text
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 150_000


def test_several_machines_stand_below_each_other(path: Path, document: Path) -> None:
    other = made_up_results.results()
    other["machine"]["accelerator"] = "Test GPU"
    second = path.with_name("second.json")
    second.write_text(json.dumps(other))
    report.write([path, second], document)
    text = document.read_text()
    first, last = text.index("**Test CPU, 2 cores**"), text.index("**Test GPU**")
    assert first < last < text.index("<!-- end targets -->")


def test_writing_again_changes_nothing(path: Path, document: Path) -> None:
    report.write([path], document)
    once = document.read_text()
    report.write([path], document)
    assert document.read_text() == once


def test_what_was_not_measured_is_said(document: Path, tmp_path: Path) -> None:
    """As in results of the first schema, which had neither curves nor memory nor a limit."""
    first = made_up_results.results()
    for name in ("schema", "curves", "memory", "counts", "copy_bandwidth", "peers", "skipped"):
        del first[name]
    for name in ("accelerator", "backend"):
        del first["machine"][name]
    first["comparisons"] = [
        {name: row[name] for name in ("op", "size", "direction", "threads", "seconds", "ratios")}
        | {"compile_seconds": 2.5}
        for row in first["comparisons"]
    ]
    first["comparisons"][3]["op"] = "training_step"
    old = tmp_path / "old.json"
    old.write_text(json.dumps(first))
    report.write([old], document)
    text = document.read_text()
    assert text.count(tables.NOT_MEASURED) == 4  # curves, directions, memory, counts
    assert "| 90.0 µs | – | 2.5 s |" in text and "`mlp784` 128x784" in text


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


def test_the_document_says_what_the_stored_results_say() -> None:
    given = {path: results.load(path) for path in results.stored()}
    assert given
    text = DOCUMENT.read_text()
    for path, one in given.items():
        for name, table in tables.TABLES.items():
            assert table(one) in text, f"{name} of {path.name}: run python -m bench.report"


def test_a_gpu_has_none_of_the_targets() -> None:
    made = made_up_results.results()
    assert "reached" in tables.target_table(made)
    made["machine"]["accelerator"], made["targets"] = "Test GPU", []
    assert tables.target_table(made) == "These targets are a CPU's."


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
