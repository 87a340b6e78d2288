"""The enumerated calls under AddressSanitizer: nothing is accessed beside a tensor.

The module is that of the bindings and the CPU kernels; ``cuda_host`` is the other. What `make
sanitize` has compiled is used again. Where it has compiled nothing, one instruction set is.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import cuda_host
import pytest
import sanitized

from vae_fast._backends import _native

FOLDER = Path(__file__).parent
PAST_THE_END = """
import torch
from vae_fast._backends import _native

eps = torch.empty(2, 100)
_native.module.noise(eps, 5, 1, 7, 0)  # of five samples, where there are two
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(autouse=True)
def _needs_a_sanitizer() -> None:
    if sanitized.libraries() is None:
        pytest.skip("the compiler lacks libasan.so or libubsan.so")
    if _native.missing is not None:
        pytest.skip(_native.missing.reason)


@functools.cache
def module() -> Path:
    made = cuda_host.ROOT / "build" / "sanitize"
    kept = (made / "CMakeCache.txt").exists()
    return cuda_host.build(
        made if kept else cuda_host.folder("sanitized_module"),
        "-DVF_SANITIZE=ON", "-DVF_SANITIZE_MODULE=ON", *(() if kept else cuda_host.BASELINE),
        source=cuda_host.ROOT / "csrc", name="_C", target="_C",
    )  # fmt: skip


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(FOLDER), os.environ.get("PYTHONPATH"))))
    named = {sanitized.VARIABLE: str(module()), "PYTHONPATH": path, **variables}
    return subprocess.run(
        [sys.executable, "-P", *arguments], cwd=FOLDER, env=sanitized.environment(**named),
        capture_output=True, text=True,
    )  # fmt: skip


def test_an_access_beside_a_tensor_is_found() -> None:
    load = "import sanitized; sanitized.pytest_load_initial_conftests()"
    done = run("-c", load + PAST_THE_END)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr, done.stderr[-4000:]


# Of the enumeration what takes a minute: all of up to two dimensions, and one call of each kind.
PICKED = {
    "cpu": "test_planes.py test_broadcasts.py -k "
    "(cpu-cpu or one_argument or two_arguments or three_arguments or nothing or many_rows) "
    "and not -3- and not -4- and not dispatched and not model",
    "cuda_host": "test_planes.py test_broadcasts.py -k cuda_host and not dispatched and not model",
}


@pytest.mark.parametrize("backend", PICKED)
def test_enumerated_calls(backend: str) -> None:
    built = cuda_host.build(cuda_host.folder("sanitize"), "-DVF_SANITIZE=ON")
    files, _, picked = PICKED[backend].partition(" -k ")
    done = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "sanitized", *files.split(),
        "-k", picked, VAE_FAST_CUDA_HOST=str(built),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
