"""The compiled kernels once for each instruction set: this process runs one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Backend

# Every vector loop, its remainder and its dtypes.
SELECTION = " or ".join(f"cpu-cpu-{kind}" for kind in ("shape", "dtype", "argument", "broadcast"))
SELECTION += " or (cpu-cpu and test_noise and test_matches)"
CALL = (
    "import torch, vae_fast.functional as F\n"
    "F.noise((2, 3), seed=0, dtype=torch.float32, device='cpu', backend='cpu')"
)


def run(instruction_set: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=Path(__file__).parent,
        env=os.environ | {"VAE_FAST_CPU": instruction_set},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("instruction_set", ["baseline", "avx2", "avx512", "avx512bf16"])
def test_parity(instruction_set: str, compiled_backend: Backend) -> None:
    from vae_fast import _C

    if instruction_set not in _C.build_info()["instruction_sets"].split():
        pytest.skip(f"this build has no {instruction_set}")
    if instruction_set == _C.build_info()["instruction_set"]:
        pytest.skip("the one that all other tests run")
    arguments = ("-q", "-x", "-p", "no:cacheprovider", "-k", SELECTION)
    ran = run(instruction_set, "-m", "pytest", *arguments, "test_parity.py", "test_noise.py")
    if "VAE_FAST_CPU must be one" in ran.stdout and instruction_set != "baseline":
        pytest.skip(f"this processor has no {instruction_set}")
    assert ran.returncode == 0, ran.stdout


def test_an_unknown_instruction_set_is_refused(compiled_backend: Backend) -> None:
    probe = run("mmx", "-c", CALL)
    assert probe.returncode != 0
    assert "VAE_FAST_CPU must be one" in probe.stderr and "'mmx'" in probe.stderr
