"""``bench/compare.py``: planted regressions are found, and what is none is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_folder
import made_up_results
import pytest

from bench import compare


def written(path: Path, results: dict[str, Any]) -> Path:
    path.write_text(json.dumps(results))
    return path


def slow_down(row: dict[str, Any], factor: float, busy: bool = False) -> None:
    """Ours alone, or eager with it, as on a busier machine."""
    row["seconds"]["vae_fast"] = [factor * s for s in row["seconds"]["vae_fast"]]
    if not busy:
        row["ratios"] = {peer: [r / factor for r in rs] for peer, rs in row["ratios"].items()}


def compared(tmp_path: Path, new: dict[str, Any]) -> int:
    old = written(tmp_path / "old.json", made_up_results.results())
    return compare.main([str(old), str(written(tmp_path / "new.json", new))])


def test_the_same_results_are_not_slower(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert compared(tmp_path, made_up_results.results()) == 0
    assert "0 of 60 rows are slower, 0 are faster" in capsys.readouterr().out


@pytest.mark.parametrize("section", ["comparisons", "curves"])
def test_a_planted_regression_is_found(
    section: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    new = made_up_results.results()
    slow_down(new[section][1], 1.1)
    assert compared(tmp_path, new) == compare.SLOWER
    out = capsys.readouterr().out
    assert "1 of 60 rows are slower, 0 are faster" in out
    row = new[section][1]
    assert f"slower: {row['op']} {row['size']} float32 {row['direction']}, 2 threads" in out
    assert "(+10.0%)" in out


def test_a_regression_without_a_ratio_is_found(tmp_path: Path) -> None:
    new = made_up_results.results()
    slow_down(new["comparisons"][0], 1.1)
    new["comparisons"][0]["ratios"] = {}
    assert compared(tmp_path, new) == compare.SLOWER


@pytest.mark.parametrize(("factor", "busy"), [(1.03, False), (1.2, True)])
def test_what_is_within_the_spread_or_slows_all_is_none(
    factor: float, busy: bool, tmp_path: Path
) -> None:
    new = made_up_results.results()
    for row in new["comparisons"]:
        slow_down(row, factor, busy)
    assert compared(tmp_path, new) == 0


def test_a_regression_below_the_asked_for_size_is_none(tmp_path: Path) -> None:
    new = made_up_results.results()
    slow_down(new["comparisons"][0], 1.1)
    paths = [
        str(written(tmp_path / name, results))
        for name, results in (("old", made_up_results.results()), ("new", new))
    ]
    assert compare.main([*paths, "--at-least", "0.2"]) == 0


def test_what_got_faster_or_is_gone_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    new = made_up_results.results()
    slow_down(new["comparisons"][0], 0.5)
    del new["comparisons"][3]
    assert compared(tmp_path, new) == 0
    out = capsys.readouterr().out
    assert "faster: sample_kl 128x20 float32 both, 2 threads: 90.0 µs to 45.0 µs (-50.0%)" in out
    assert "no longer measured: mlp784 128x784 float32 step, 2 threads" in out


def test_other_machines_and_no_common_rows_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = made_up_results.results()
    other["machine"]["cores"] = 64
    assert compared(tmp_path, other) == compare.INCOMPARABLE
    assert "different machines: cores 2, 64" in capsys.readouterr().err
    nothing = made_up_results.results() | {"comparisons": [], "curves": []}
    assert compared(tmp_path, nothing) == compare.INCOMPARABLE
    assert "no row in common" in capsys.readouterr().err
    assert compared(tmp_path, {"some": "json"}) == compare.INCOMPARABLE


def test_as_a_program(tmp_path: Path) -> None:
    """``python bench/compare.py``, from any folder."""
    old, new = made_up_results.results(), made_up_results.results()
    slow_down(new["comparisons"][0], 2.0)
    paths = [written(tmp_path / "old.json", old), written(tmp_path / "new.json", new)]
    script = bench_folder.ROOT / "bench" / "compare.py"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, paths)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == compare.SLOWER, done.stderr
    assert "slower: sample_kl 128x20" in done.stdout
