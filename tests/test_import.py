"""What ``import vae_fast`` costs, and what it brings in beside torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import vae_fast

LIMIT = 0.15  # seconds beyond `import torch`
ATTEMPTS = 8


def python(code: str) -> str:
    """The output of a new interpreter that finds the package under test first."""
    place = str(Path(vae_fast.__file__).parents[1])
    # torch first: beside an installed package may lie copies of what the standard library has.
    code = f"import sys, torch; sys.path.insert(0, {place!r})\n{code}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_costs_little_beyond_torch() -> None:
    """A busy machine can only lengthen a run, so one short enough run is the proof."""
    code = (
        "import time; start = time.perf_counter(); import vae_fast\n"
        "print(time.perf_counter() - start)"
    )
    seconds = []
    while len(seconds) < ATTEMPTS:
        seconds.append(float(python(code)))
        if seconds[-1] <= LIMIT:
            return
    raise AssertionError(f"import vae_fast took {min(seconds):.3f} s at best, of {LIMIT} s allowed")


def test_brings_in_no_other_package() -> None:
    """Above all neither triton nor lightning, whose imports take seconds."""
    code = (
        "before = set(sys.modules); import vae_fast\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    packages = set(python(code).split()) - sys.stdlib_module_names
    assert packages <= {"vae_fast", "torch", "numpy"}
