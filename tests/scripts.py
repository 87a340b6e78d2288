"""The scripts in examples/ and bench/, as modules."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "examples"


def script(name: str) -> ModuleType:
    """examples/``name``.py, imported; its ``main`` is not run."""
    if str(FOLDER) not in sys.path:  # an example may import another, as where it is run
        sys.path.append(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def benchmark(name: str) -> ModuleType:
    """bench/``name``.py; the repository comes last on the path, behind the package under test."""
    root = str(FOLDER.parent)
    if root not in sys.path:
        sys.path.append(root)
    return importlib.import_module(f"bench.{name}")
