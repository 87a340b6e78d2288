"""``make gpu-check``: the package installed, tested and timed on the GPU of this machine.

Needs no network. Takes the Python it is run with, and of its packages torch, numpy, pytest and
hypothesis (and cmake, ninja and pybind11 if the compiled module is to be there). Writes everything
into one folder, the result into its ``gpu-check.json`` after each part, so that one that is ended
early has lost only the rest. Tests for which there is no time are counted as such.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("torch", "numpy", "pytest", "hypothesis", "setuptools", "pip")
TO_BUILD = ("cmake", "ninja", "pybind11")
INSTALL_SECONDS, TEST_SECONDS = 300, 140
# What is measured, a module of this folder each, and how long it may take. The suite is that of
# every device, for the ops and models that a GPU is bought for.
SUITE = ("sample_kl", "negative_elbo", "elbo", "mlp784", "conv64", "tabular20000")
MEASURED = {
    "figures": (("bench.gpu",), 200),
    "stages": (("bench.stages", "--device", "cuda"), 60),
    "suite": (("bench.run", "--device", "cuda", "--ahead", *SUITE), 1800),
}
PARTS = ("tests", *MEASURED)
GRACE = 20  # for what is under way when the time for tests is over
# Of every test that runs on a device those of these backends; of tests/gpu, which run on nothing
# else, all. Side by side: most of their time is compilation, on the host.
TESTS = (
    "test_parity.py", "test_noise.py", "test_accuracy.py", "test_rows.py", "test_determinism.py",
    "test_mixed_precision.py", "test_autograd.py", "test_triton.py", "test_triton_replay.py",
    "test_alignment.py",
)  # fmt: skip
SELECTED = {"cuda": "cuda and not cuda_host and not triton", "triton": "triton"}
WORKERS = 6  # for each backend
# The CUDA kernels at small sizes under NVIDIA's tools, beside the tests and as long as they.
SANITIZER, SANITIZERS = "compute-sanitizer", ("memcheck", "racecheck", "initcheck")
SANITIZED = ("test_parity.py", "-k", "cuda-cuda and (dtype or subset or (broadcast and 6x5x3))")
FAULT = 86  # the status where a tool has found one: none of pytest's
# Of pytest, where it has run its share: all passed, some failed, none in it. Else it has not.
RAN = (0, 1, 5)


def missing(names: Iterable[str]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def add(counts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The sum of what the shares of the tests report."""
    total: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "late": 0, "failures": []}
    for each in counts:
        for name in total:
            total[name] += each[name]
    return total


def install(site: Path, log: Path) -> tuple[dict[str, str], str]:
    """Installs into ``site``; the environment to use it with, and how it was made."""
    lacking = missing(TO_BUILD)
    native = "0" if lacking else "1"
    # For the GPUs of this machine alone: all architectures take minutes.
    environment = {"CUDAARCHS": "native"} | os.environ | {"VAE_FAST_NATIVE": native}
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation",
               "--no-index", "--upgrade", "--target", str(site), str(ROOT)]  # fmt: skip
    with log.open("w") as out:
        done = subprocess.run(command, env=environment, stdout=out, stderr=out, check=False,
                              timeout=INSTALL_SECONDS)  # fmt: skip
    if done.returncode:
        sys.exit(f"the installation failed; see {log}")
    how = f"without the compiled module: no {', '.join(lacking)}" if lacking else "complete"
    path = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    environment.pop("TRITON_INTERPRET", None)
    return environment, how


def run_tests(
    selection: list[str],
    workers: int,
    seconds: int,
    environment: dict[str, str],
    folder: Path,
    name: str,
    under: Sequence[str] = (),  # a program to run them
) -> dict[str, Any]:
    """Shares of the tests, side by side: most of their time is compilation, on the host."""
    config = folder / f"{name}.ini"
    config.write_text("[pytest]\nmarkers =\n    slow: takes more than ten seconds\n")
    path = os.pathsep.join([str(ROOT / "tests" / "gpu"), environment["PYTHONPATH"]])
    started = []
    for index in range(workers):
        out, log = folder / f"{name}-{index}.json", folder / f"{name}-{index}.log"
        out.unlink(missing_ok=True)  # of an earlier check
        variables = environment | {
            "PYTHONPATH": path,
            "VAE_FAST_SHARD": f"{index}/{workers}",
            "VAE_FAST_SHARD_SECONDS": str(seconds),
            "VAE_FAST_SHARD_OUT": str(out),
        }
        command = [*under, sys.executable, "-m", "pytest", "-c", str(config),
                   "--rootdir", str(ROOT), "-q", "-p", "shard", "-p", "no:cacheprovider",
                   *selection]  # fmt: skip
        with log.open("w") as text:
            process = subprocess.Popen(command, env=variables, cwd=folder, stdout=text, stderr=text,
                                       start_new_session=True)  # fmt: skip
        started.append((process, out, log))
    end = time.monotonic() + seconds + GRACE
    counts = []
    for process, out, log in started:
        try:
            process.wait(max(1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with what it runs the tests in
            process.wait()
        ran = process.returncode in RAN and out.exists()
        made = json.loads(out.read_text()) if ran else None
        lost = {"passed": 0, "failed": 1, "skipped": 0, "late": 0, "failures": [f"see {log}"]}
        counts.append(made or lost)
    return add(counts)


def sanitize(
    selection: list[str], seconds: int, environment: dict[str, str], folder: Path
) -> dict[str, dict[str, Any]]:
    """The tests under each of the sanitizer's tools, side by side; none where it is missing.

    A tool that found a fault ends with a status of its own, and its tests have failed.
    """
    program = shutil.which(SANITIZER, path=environment.get("PATH"))
    if program is None:
        return {}
    # Tensors must not share blocks of memory, so that an access outside one is seen as such.
    environment = environment | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}

    def run(tool: str) -> dict[str, Any]:
        under = (program, "--tool", tool, "--error-exitcode", str(FAULT))
        return run_tests(selection, 1, seconds, environment, folder, tool, under)

    with ThreadPoolExecutor(len(SANITIZERS)) as pool:
        return dict(zip(SANITIZERS, pool.map(run, SANITIZERS), strict=True))


def run_all_tests(
    seconds: int, environment: dict[str, str], folder: Path
) -> dict[str, dict[str, Any]]:
    """Every kind of test at once."""
    files = [str(ROOT / "tests" / name) for name in TESTS]
    workers = max(1, min(WORKERS, (os.cpu_count() or 2) // 2))
    # A process has one thread: they are as many as there are cores.
    environment = environment | {"OMP_NUM_THREADS": "1"}

    def run(name: str, selection: list[str], workers: int) -> dict[str, Any]:
        return run_tests(selection, workers, seconds, environment, folder, name)

    with ThreadPoolExecutor() as pool:
        tools = pool.submit(sanitize, [str(ROOT / "tests" / SANITIZED[0]), *SANITIZED[1:]], seconds,
                            environment, folder)  # fmt: skip
        started = {"device": pool.submit(run, "device", [str(ROOT / "tests" / "gpu")], 1)} | {
            name: pool.submit(run, name, [*files, "-k", chosen], workers)
            for name, chosen in SELECTED.items()
        }
        return {name: each.result() for name, each in started.items()} | tools.result()


def measure(part: str, environment: dict[str, str], folder: Path) -> tuple[Any, list[str]]:
    """What a module of ``MEASURED`` has written, whole or not, and what it says."""
    (module, *options), seconds = MEASURED[part]
    out, log = folder / f"{part}.json", folder / f"{part}.log"
    out.unlink(missing_ok=True)  # of an earlier check
    command = [sys.executable, "-m", module, *options, "--out", str(out)]
    with log.open("w") as text:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=text,
                                   stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with what it compiles in
            process.wait()
    lines = log.read_text().splitlines()
    if process.returncode:
        lines.append(f"{part}: ended with status {process.returncode}, in at most {seconds} s")
    return json.loads(out.read_text()) if out.exists() else None, lines


def summary(tests: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each kind of tests."""
    lines = [
        f"{name}: {each['passed']} passed, {each['failed']} failed, {each['skipped']} skipped, "
        f"{each['late']} not run for want of time"
        for name, each in tests.items()
    ]
    if not any(tool in tests for tool in SANITIZERS):
        lines.append(f"{', '.join(SANITIZERS)}: not run, {SANITIZER} is not on PATH")
    return lines


def describe(environment: dict[str, str], folder: Path) -> Any:
    """The machine, as the installed package sees it."""
    code = "import json; from bench import gpu_machine as m; print(json.dumps(m.describe()))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder,
                          capture_output=True, text=True, check=True)  # fmt: skip
    return json.loads(done.stdout)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default all")
    parser.add_argument("--test-seconds", type=int, default=TEST_SECONDS,
                        help=f"for tests; default {TEST_SECONDS}")  # fmt: skip
    options = parser.parse_args(arguments)
    folder = options.out.resolve()
    if lacking := missing(NEEDED):
        sys.exit(f"gpu-check needs {', '.join(lacking)} in {sys.executable}")
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device that torch can use: gpu-check needs one")
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the installed package, not instead of it: the folder has no vae_fast.
    (folder / "bench").unlink(missing_ok=True)
    (folder / "bench").symlink_to(ROOT / "bench")
    path = folder / "gpu-check.json"
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "sanitizer": shutil.which(SANITIZER) or f"no {SANITIZER} on PATH",
    }

    def keep(lines: Iterable[str], **made: Any) -> None:
        result.update(made, seconds=time.monotonic() - start)
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(*lines, f"{result['seconds']:.0f} s so far", sep="\n", flush=True)

    environment, how = install(folder / "site", folder / "install.log")
    keep([f"installed: {how}"], installation=how, machine=describe(environment, folder))
    good = True
    if "tests" in options.parts:
        tests = run_all_tests(options.test_seconds, environment, folder)
        good = not any(each["failed"] for each in tests.values())
        keep(summary(tests), tests=tests)
    for part in MEASURED:
        if part in options.parts:
            made, lines = measure(part, environment, folder)
            good = good and made is not None
            keep(lines, **{part: made})
    print(f"wrote {path}")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
