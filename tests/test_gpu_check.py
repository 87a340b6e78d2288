"""What of the check on a GPU can be tested without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # bench is not installed

from bench import gpu, gpu_check  # noqa: E402

TESTS = """
import pytest

@pytest.mark.parametrize("number", range(20))
def test_number(number):
    if number == 3:
        pytest.skip("no three")
    assert number != 7
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_stops_with_one_line(tmp_path: Path) -> None:
    for module in ("gpu_check", "gpu"):
        command = [sys.executable, "-m", f"bench.{module}", "--out", str(tmp_path / "out")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and "no CUDA device" in done.stderr
    assert not (tmp_path / "out").exists()


def shard(folder: Path, share: str, seconds: str = "inf") -> dict:
    (folder / "test_numbers.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    out = folder / f"{share.replace('/', '-')}.json"
    variables = os.environ | {
        "PYTHONPATH": str(ROOT / "tests" / "gpu"),
        "VAE_FAST_SHARD": share,
        "VAE_FAST_SHARD_SECONDS": seconds,
        "VAE_FAST_SHARD_OUT": str(out),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "shard", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert out.exists(), done.stdout + done.stderr
    return json.loads(out.read_text())


def test_shares_are_all_tests_once(tmp_path: Path) -> None:
    total = gpu_check.add(shard(tmp_path, f"{index}/3") for index in range(3))
    assert (total["passed"], total["failed"], total["skipped"], total["late"]) == (18, 1, 1, 0)
    assert total["failures"] == ["test_numbers.py::test_number[7]"]


def test_what_there_is_no_time_for_is_counted_and_not_passed(tmp_path: Path) -> None:
    total = shard(tmp_path, "0/1", seconds="-1")
    assert (total["passed"], total["failed"], total["late"]) == (0, 0, 20)


def test_tests_that_did_not_report_have_failed(tmp_path: Path) -> None:
    environment = dict(os.environ, PYTHONPATH="")
    (tmp_path / "none-0.json").write_text('{"passed": 5, "failed": 0}')  # of an earlier check
    total = gpu_check.run_tests([str(tmp_path / "missing.py")], 1, 5, environment, tmp_path, "none")
    assert (total["passed"], total["failed"]) == (0, 1)
    assert total["failures"] == [f"see {tmp_path / 'none-0.log'}"]


# In place of compute-sanitizer: runs what it is given, and says that racecheck has found something.
TOOL = """#!/bin/sh
[ "$1 $3 $4" = "--tool --error-exitcode 86" ] || exit 99
tool=$2
shift 4
"$@" && [ $tool != racecheck ] || exit 86
"""


def sanitized(folder: Path, tool: str | None) -> dict[str, dict]:
    programs = folder / "bin"
    programs.mkdir()
    if tool is not None:
        (programs / "compute-sanitizer").write_text(tool)
        (programs / "compute-sanitizer").chmod(0o755)
    (folder / "test_numbers.py").write_text(TESTS.replace("!= 7", "< 20"))
    environment = dict(os.environ, PYTHONPATH="", PATH=f"{programs}{os.pathsep}/usr/bin:/bin")
    return gpu_check.sanitize([str(folder / "test_numbers.py")], 60, environment, folder)


def test_what_a_sanitizer_finds_is_a_failure(tmp_path: Path) -> None:
    tests = sanitized(tmp_path, TOOL)
    assert list(tests) == ["memcheck", "racecheck", "initcheck"]
    for name in ("memcheck", "initcheck"):
        assert (tests[name]["passed"], tests[name]["skipped"], tests[name]["failed"]) == (19, 1, 0)
    assert (tests["racecheck"]["passed"], tests["racecheck"]["failed"]) == (0, 1)
    assert tests["racecheck"]["failures"] == [f"see {tmp_path / 'racecheck-0.log'}"]
    assert gpu_check.summary(tests)[1].startswith("racecheck: 0 passed, 1 failed")


def test_a_missing_sanitizer_is_named(tmp_path: Path) -> None:
    tests = sanitized(tmp_path, None)
    assert tests == {}
    said = "memcheck, racecheck, initcheck: not run, compute-sanitizer is not on PATH"
    assert gpu_check.summary(tests) == [said]


def test_what_is_missing_is_named() -> None:
    assert gpu_check.missing(["torch", "no_such_package"]) == ["no_such_package"]


def test_least_bytes_and_sizes() -> None:
    assert gpu.least_bytes("negative_elbo", "both", 10, torch.float32) == 200
    assert gpu.least_bytes("sample_kl", "forward", 10, torch.bfloat16) == 60
    assert gpu.elements_for(80 * gpu.GIB) == 2**28
    assert gpu.elements_for(8 * gpu.GIB) == 2**25


def test_the_short_table() -> None:
    bandwidth = {"op": "noise", "direction": "forward", "dtype": "float32", "gb_per_s": 1234.5,
                 "shape": [64, 4096], "of_copy": 0.913, "target": 0.9, "reached": True}  # fmt: skip
    ratio = {"op": "elbo", "size": "128x20+784", "target": 3.0, "reached": False,
             "ratios": {"eager": (2.0, 2.5, 3.0)}}  # fmt: skip
    assert gpu.line("triton", "bandwidth", bandwidth) == (
        "triton  noise forward 64x4096 float32: 1234 GB/s, 91% of a copy (90%: reached)"
    )
    assert gpu.line("triton", "ratios", ratio) == (
        "triton  elbo 128x20+784 both: eager 2.50x (3.0x: not reached)"
    )
    counts = {"passed": 5, "failed": 1, "skipped": 2, "late": 3, "failures": ["x"]}
    said = gpu_check.summary({"triton": counts, "memcheck": counts})
    assert said[0] == "triton: 5 passed, 1 failed, 2 skipped, 3 not run for want of time"
    assert len(said) == 2


# In place of a module that measures: writes one figure, says so, and does not come to an end.
ENDLESS = """
import pathlib, sys, time
pathlib.Path(sys.argv[-1]).write_text("[1]")
print("one figure", flush=True)
time.sleep(600)
"""


def test_what_was_measured_before_time_was_up_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    monkeypatch.setitem(gpu_check.MEASURED, "figures", (("endless", "--some", "option"), 3))
    made, lines = gpu_check.measure("figures", dict(os.environ, PYTHONPATH=""), tmp_path)
    assert made == [1] and lines[0] == "one figure"
    assert lines[1] == "figures: ended with status -9, in at most 3 s"
