"""No tensor that torch can hand over ends the process: it gets the right numbers, or an error.

``odd_tensors.py`` says which tensors and what is expected of each. It runs in its own process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BACKENDS, Backend, require

PROGRAM = Path(__file__).parent / "odd_tensors.py"


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_tensors_of_odd_kinds(backend: Backend) -> None:
    if backend.device != "cpu":
        pytest.skip("the kinds are made on the CPU")
    require(backend)
    if backend.name == "cuda_host":
        import cuda_host

        cuda_host.backend()  # built by one process at a time, and not within the time below
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), backend.name],
        capture_output=True, text=True, timeout=250, env=environment,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    cases = [line for line in lines if line.startswith("case ")]
    assert done.returncode == 0, (
        f"ended with status {done.returncode} in {cases[-1:]}:\n{done.stderr[-2000:]}"
    )
    wrong = [line for line in lines if line.startswith("wrong: ")]
    assert not wrong, "\n".join(wrong[:40])
    assert lines[-1] == f"done {len(cases)}" and len(cases) > 300
