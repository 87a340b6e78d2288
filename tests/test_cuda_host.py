"""The layer that runs the CUDA kernels on the CPU: what the parity suite over it can be trusted in.

Kernels with a fault planted into their sources must fail; the sources as they are must give the
same bits in whatever order blocks and threads run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cuda_host
import oracle
import pytest
import sanitized
import torch
from cases import ARGUMENTS, Case
from check import check, run
from conftest import add_backend

import vae_fast.functional as F
from vae_fast._backends import _native, cuda
from vae_fast._backends._cuda_status import has_code

LONG = {"gaussian_kl": (3, 5000), "sample_kl": (2, 9001), "negative_elbo": (5, 4001)}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    add_backend(monkeypatch, cuda_host.NAME, cuda_host.backend())
    yield cuda_host.NAME
    cuda_host.kernels().set_order(1)
    cuda_host.kernels().set_error(0.0)
    cuda_host.kernels().set_runs(True)


def cases() -> list[Case]:
    shared = [
        Case(op, (67, 41), dtype=dtype, logvar=kind)
        for op in ARGUMENTS
        for dtype in (torch.float32, torch.bfloat16)
        for kind in ("event", "scalar")
    ]
    return [Case(op, shape) for op, shape in LONG.items()] + shared


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_order_of_threads_and_blocks_does_not_matter(case: Case, host: str) -> None:
    results = []
    for order in (1, 2, 3):
        cuda_host.kernels().set_order(order)
        result, _ = run(case, host)
        results.append([*result.outputs.values(), *result.gradients.values()])
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first.detach(), second.detach())


# Threads share a row by its length and the number of rows: with these, from one to a warp.
SHORT = [(700, 4), (700, 8), (600, 16), (600, 20), (300, 32), (200, 64), (150, 96), (150, 128),
         (80, 256), (40, 520)]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHORT, ids=str)
@pytest.mark.parametrize("op", ["sample_kl", "gaussian_log_likelihood", "sample_log_weights"])
def test_rows_that_few_threads_share(
    op: str, shape: tuple[int, int], dtype: torch.dtype, host: str
) -> None:
    check(Case(op, shape, dtype=dtype), host)


@pytest.mark.parametrize("error", [-1.0, 1.0])
def test_noise_is_within_its_bound_where_instructions_err_as_far_as_they_may(
    error: float, host: str
) -> None:
    cuda_host.kernels().set_error(error)
    got = F.noise((1 << 18,), seed=5, event_dims=0, dtype=torch.float32, device="cpu", backend=host)
    want = oracle.noise((1 << 18,), 5, 0)
    assert (got.double() - want).abs().max().item() <= 4e-6


def test_launches_can_be_left_out(host: str) -> None:
    """What bench/launch_path.py times: results are made, and nothing is written to them."""
    x = torch.zeros(3, 5)
    cuda_host.kernels().set_runs(False)
    assert F.gaussian_kl(x, x, backend=host).isnan().all()
    cuda_host.kernels().set_runs(True)
    assert torch.equal(F.gaussian_kl(x, x, backend=host), torch.zeros(3))


def test_a_launch_that_cuda_refuses_is_an_error_with_its_shape(host: str) -> None:
    nothing = torch.empty(0, 1, 4)  # which the backend launches no kernel for
    said = r"kernel noise, grid 1 x 0, 256 threads.*cudaErrorInvalidConfiguration, invalid config"
    with pytest.raises(RuntimeError, match=said):
        cuda_host.kernels().noise(nothing, 0, 1, 0, 0)


# A fault, the file that it is planted in, what stands there and what takes its place, and what is
# said of it.
FAULTS = {
    "a removed barrier": (
        "reduce.cuh",
        "= static_cast<double>(value);\n  __syncthreads();",
        "= static_cast<double>(value);",
        "elements are off",
    ),
    "a barrier for some": (
        "reduce.cuh",
        "  __syncthreads();  // the next",
        "  if (threadIdx.x < 200) __syncthreads();  // the next",
        "wait for ever: from thread",
    ),
    "a tail one too long": (
        "operand.cuh",
        "left < P ? static_cast<int>(left)",
        "left < P ? static_cast<int>(left) + 1",
        "elements are off",
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, right, wrong, message = FAULTS[fault]
    csrc = shutil.copytree(cuda_host.ROOT / "csrc", tmp_path / "csrc")
    source = csrc / "cuda" / file
    assert source.read_text().count(right) == 1
    source.write_text(source.read_text().replace(right, wrong))
    options = (f"-DVF_CSRC={csrc}", "-DVF_OPTIMIZE=-O0")
    built = cuda_host.build(tmp_path / "build", *options, name="_" + fault.replace(" ", "_"))
    add_backend(monkeypatch, "faulty", cuda_host.backend_over(cuda_host.load(built)))
    with pytest.raises((AssertionError, RuntimeError), match=message):
        # Without a backward pass: nothing may be written where the tests' own memory lies.
        check(Case("gaussian_kl", (3, 5002), differentiate=()), "faulty")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_parity_under_address_sanitizer() -> None:
    """Every kernel, dtype and broadcast: no access outside a tensor or shared memory."""
    if sanitized.libraries() is None:
        pytest.skip("the compiler lacks libasan.so or libubsan.so")
    built = cuda_host.build(cuda_host.folder("sanitize"), "-DVF_SANITIZE=ON")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_parity.py", "-k",
         "cuda_host and (dtype or subset or (shape and 3x7) or (broadcast and 6x5x3x4))"],
        cwd=Path(__file__).parent,
        env=sanitized.environment(VAE_FAST_CUDA_HOST=str(built)),
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 5), "75-real 80-real 90-real 120", True),
        ((8, 7), "80-real 86-real", True),  # machine code of the same major version
        ((8, 0), "86-real", False),
        ((9, 0), "80-real 86-real", False),
        ((9, 0), "80", True),  # by its PTX
        ((12, 1), "100-real 120", True),
        ((13, 0), "100-real 120-real", False),
        ((13, 0), "100-real 120-virtual", True),
        ((7, 0), "75-real 120", False),
        ((9, 0), "120-virtual", False),
    ],
)
def test_which_devices_code_is_for(
    capability: tuple[int, int], architectures: str, runs: bool
) -> None:
    assert has_code(capability, architectures) is runs


def reason(monkeypatch: pytest.MonkeyPatch, kernels: object, **info: str) -> str:
    class Module:
        @staticmethod
        def build_info() -> dict[str, str]:
            return {"cuda_version": "13.0.88", "cuda_architectures": "80-real 90"} | info

    monkeypatch.setattr(_native, "missing", None)
    monkeypatch.setattr(_native, "module", Module)
    monkeypatch.setattr(cuda, "_kernels", kernels)
    found = cuda.unavailable()
    assert found is not None and found.remedy
    return found.reason


class Driver:
    def __init__(self, version: int) -> None:
        self.driver_version = lambda: version


def test_why_the_backend_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cause has its own words; none is found out by a launch that fails."""
    assert "built without CUDA" in reason(monkeypatch, None)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "torch is built without CUDA" in reason(monkeypatch, Driver(13000))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "no NVIDIA driver" in reason(monkeypatch, Driver(0))
    assert "driver runs CUDA 12.4" in reason(monkeypatch, Driver(12040))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch finds no GPU" in reason(monkeypatch, Driver(13000))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    assert "none for compute capability 7.5" in reason(monkeypatch, Driver(13000))
