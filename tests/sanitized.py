"""The compiled module under AddressSanitizer and UBSan, in place of the one that is installed.

Torch's memory comes from the C library, whose functions a preloaded AddressSanitizer replaces: what
a kernel or a binding accesses beside a tensor is an error.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

VARIABLE = "VAE_FAST_SANITIZED"  # the module's path; pytest has to be told `-p sanitized`


def pytest_load_initial_conftests() -> None:
    """Loads the module before a conftest imports the package, which then finds it loaded."""
    assert "vae_fast" not in sys.modules
    spec = importlib.util.spec_from_file_location("vae_fast._C", os.environ[VARIABLE])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["vae_fast._C"] = module


def libraries() -> list[str] | None:
    """What Python has to preload; None where the compiler lacks some of it."""
    found = []
    for name in ("libasan.so", "libubsan.so"):
        compiler = os.environ.get("CXX", "c++").split()
        asked = subprocess.run(
            [*compiler, f"-print-file-name={name}"], capture_output=True, text=True
        )
        found.append(asked.stdout.strip())
    return found if all(Path(path).is_absolute() for path in found) else None


def environment(**variables: str) -> dict[str, str]:
    """For a Python that loads sanitized modules. Leaks are Python's own."""
    preloaded = libraries()
    assert preloaded is not None
    return os.environ | {
        "LD_PRELOAD": " ".join(preloaded),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "OMP_NUM_THREADS": "1",  # a second thread would write far from where a tensor ends
        **variables,
    }
