"""The Triton kernels compiled ahead of time, for GPUs that need not be there."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


# One of the kernels, as if a thread had fewer registers than it needs.
SPILLING = """
import torch
import vae_fast._backends.triton
from bench import triton_kernels, triton_variants
from vae_fast.kernels import launch

def narrow(kernel, programs, *arguments):
    options = dict(num_warps=4, num_stages=1, enable_fp_fusion=False, maxnreg=32)
    kernel[(programs,)](*arguments, **options)

launch.launch = narrow
variant = triton_variants.Variant("gaussian_kl", dtype=torch.float64)
print(*triton_kernels.check((variant,), ("sm_90",))[1], sep="\\n")
"""


def without_interpreter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since here the interpreter may have replaced the compiler."""
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def compile_ahead(*arguments: str) -> subprocess.CompletedProcess[str]:
    return without_interpreter("-m", "bench.triton_kernels", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_kernels_compile_and_keep_their_promises(target: str) -> None:
    done = compile_ahead("--quick", "--targets", target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken promises" in done.stdout


def test_a_spilled_register_is_found() -> None:
    done = without_interpreter("-c", SPILLING)
    assert done.returncode == 0, done.stderr
    assert re.search(r"gaussian_kl_\w+ of .* for sm_90: spills \d+ bytes a thread", done.stdout)


def test_there_is_nothing_to_compile_in_the_interpreter() -> None:
    variables = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "bench.triton_kernels", "--quick"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 1 and "TRITON_INTERPRET" in done.stderr
