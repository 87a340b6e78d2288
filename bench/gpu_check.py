"""``make gpu-check``: the package installed, tested and timed on the GPU of this machine.

Needs no network. Takes the Python it is run with, and of its packages torch, numpy, pytest and
hypothesis (and cmake, ninja and pybind11 if the compiled module is to be there). Writes everything
into one folder, the result into its ``gpu-check.json``, and ends within eight minutes: tests for
which there is no time are counted as such.
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
INSTALL_SECONDS, DEVICE_SECONDS, PARITY_SECONDS, BENCH_SECONDS = 80, 50, 140, 150
GRACE = 20  # for what is under way when the time for tests is over
# Every test that runs on a device, and in tests/gpu those that run on nothing else.
TESTS = (
    "test_parity.py", "test_noise.py", "test_accuracy.py", "test_rows.py", "test_determinism.py",
    "test_mixed_precision.py", "test_autograd.py", "test_triton.py",
)  # fmt: skip
WORKERS = 8
# The CUDA kernels at small sizes under NVIDIA's tools, beside the parity tests and as long as they.
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


def benchmark(environment: dict[str, str], folder: Path) -> tuple[dict[str, Any] | None, str]:
    """The figures of ``bench.gpu``, and what it says."""
    out = folder / "figures.json"
    # Beside the installed package, not instead of it: the folder has no vae_fast.
    (folder / "bench").unlink(missing_ok=True)
    (folder / "bench").symlink_to(ROOT / "bench")
    command = [sys.executable, "-m", "bench.gpu", "--out", str(out)]
    try:
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True,
                              timeout=BENCH_SECONDS, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, f"the benchmarks took more than {BENCH_SECONDS} s"
    if done.returncode:
        return None, f"the benchmarks failed: {done.stderr[-2000:]}"
    return json.loads(out.read_text()), done.stdout


def summary(tests: dict[str, dict[str, Any]], said: str, seconds: float) -> list[str]:
    """The short table."""
    lines = [
        f"{name}: {each['passed']} passed, {each['failed']} failed, {each['skipped']} skipped, "
        f"{each['late']} not run for want of time"
        for name, each in tests.items()
    ]
    if not any(tool in tests for tool in SANITIZERS):
        lines.append(f"{', '.join(SANITIZERS)}: not run, {SANITIZER} is not on PATH")
    return [said.strip(), *lines, f"{seconds:.0f} seconds in all"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    folder = parser.parse_args(arguments).out.resolve()
    if lacking := missing(NEEDED):
        sys.exit(f"gpu-check needs {', '.join(lacking)} in {sys.executable}")
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device that torch can use: gpu-check needs one")
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    environment, how = install(folder / "site", folder / "install.log")
    workers = max(1, min(WORKERS, (os.cpu_count() or 2) // 2))
    device = [str(ROOT / "tests" / "gpu")]
    files = (str(ROOT / "tests" / name) for name in TESTS)
    parity = [*files, "-k", "(cuda or triton) and not cuda_host"]
    sanitized = [str(ROOT / "tests" / SANITIZED[0]), *SANITIZED[1:]]
    tests = {
        "on the device": run_tests(device, 1, DEVICE_SECONDS, environment, folder, "device"),
    }
    with ThreadPoolExecutor(1) as pool:
        tools = pool.submit(sanitize, sanitized, PARITY_SECONDS, environment, folder)
        tests["parity"] = run_tests(parity, workers, PARITY_SECONDS, environment, folder, "parity")
        tests |= tools.result()
    describe = "import json; from bench import gpu_machine as m; print(json.dumps(m.describe()))"
    figures, said = benchmark(environment, folder)
    machine = subprocess.run([sys.executable, "-c", describe], env=environment, cwd=folder,
                             capture_output=True, text=True, check=True)  # fmt: skip
    seconds = time.monotonic() - start
    result = {
        "machine": json.loads(machine.stdout),
        "date": datetime.date.today().isoformat(),
        "installation": how,
        "tests": tests,
        "sanitizer": shutil.which(SANITIZER) or f"no {SANITIZER} on PATH",
        "figures": figures,
        "seconds": seconds,
    }
    path = folder / "gpu-check.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(*summary(tests, said, seconds), f"wrote {path}", sep="\n")
    return int(figures is None or any(each["failed"] for each in tests.values()))


if __name__ == "__main__":
    sys.exit(main())
