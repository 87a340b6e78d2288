"""What ``import vae_fast`` costs, and what it brings in beside torch."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import vae_fast

LIMIT = 0.15  # seconds beyond `import torch`
ATTEMPTS = 8


ROOT = Path(__file__).parents[1]


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


def modules() -> dict[str, Path]:
    """By name those of the package, as far as it is installed from, and of the benchmark."""
    found = {}
    folders = {"vae_fast": "vae_fast", "vae_fast.kernels": "kernels", "bench": "bench"}
    for name, folder in folders.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((name, *parts)).removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules among the known ones that a file imports, for types and in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in {path}"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside & known.keys()
            # What is no module is a name of the package, or what is compiled.
            if any(alias.name != "_C" for alias in node.names) and inside - known.keys():
                found.add(node.module or "")
    return found & known.keys()


def test_no_import_goes_in_a_circle() -> None:
    known = modules()
    assert len(known) > 100
    graph = {name: imported(path, known) - {name} for name, path in known.items()}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle
