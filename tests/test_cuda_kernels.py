"""The CUDA kernels as the compiler makes them: no spill, no stack, 16-byte accesses, no warning."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from scripts import benchmark

cuda_kernels = benchmark("cuda_kernels")
ROOT = Path(__file__).parents[1]
# Of each op's file some architecture, so that every architecture is met; the whole product is what
# `python -m bench.cuda_kernels` compiles.
PAIRS = {
    "noise": ("75", "80", "86", "89", "90", "100", "120"),
    "scale": ("75", "120"),
    "finish": ("75", "120"),
    "gaussian_kl": ("86", "120"),
    "gaussian_log_likelihood": ("75", "89"),
    "importance_weighted_elbo": ("75", "90"),
    "negative_elbo": ("80", "90"),
    "sample_kl": ("90", "100"),
    "sample_log_weights": ("75", "90"),
    "score_function": ("80", "120"),
}


def test_every_kernel_is_looked_at() -> None:
    assert {source.stem for source in cuda_kernels.sources()} == set(PAIRS)
    assert {arch for archs in PAIRS.values() for arch in archs} == set(
        cuda_kernels.default_architectures()
    )


@pytest.mark.slow
@pytest.mark.parametrize(("op", "arch"), [(op, arch) for op in PAIRS for arch in PAIRS[op]])
def test_compiled_code(op: str, arch: str) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("there is no nvcc")
    if cuda_kernels.cuobjdump() is None:
        pytest.skip("there is no cuobjdump")
    kernels = cuda_kernels.compile_source(cuda_kernels.SOURCES / f"{op}.cu", arch)
    assert kernels
    assert {k.name: cuda_kernels.faults(k) for k in kernels if cuda_kernels.faults(k)} == {}


def test_faults_are_seen() -> None:
    good = cuda_kernels.Kernel(
        "sample_kl", "k<Form<float, 4, true, true>, true>", "90", registers=64, shared=0, stack=0,
        spilled=0, instructions=900, turn=160, wide_loads=2, wide_stores=1, narrower=9, local=0,
    )  # fmt: skip
    assert cuda_kernels.faults(good) == []
    for change in (
        {"stack": 8},
        {"spilled": 4},
        {"local": 2},
        {"wide_loads": 0},
        {"wide_stores": 0},
    ):
        assert cuda_kernels.faults(good._replace(**change)) != []


def test_the_only_launch_is_in_the_wrapper() -> None:
    """Where errors are looked for, and where the tests put a launch of their own in its place."""
    for path in sorted((ROOT / "csrc" / "cuda").iterdir()):
        code = re.sub(r"//.*", "", path.read_text())
        assert "<<<" not in code, path
        assert ("cudaLaunch" in code) == (path.name == "launch.cuh"), path
        assert not re.search(r"\b(?:atomicAdd|cudaMalloc|Synchronize)\b", code), path


def test_the_core_knows_neither_torch_nor_python() -> None:
    def folders_with(headers: str) -> set[str]:
        command = ["grep", "-rlE", f"#include <({headers})", ROOT / "csrc"]
        done = subprocess.run(command, capture_output=True, text=True)
        return {Path(line).parent.name for line in done.stdout.splitlines()}

    assert folders_with("pybind11|Python") == {"bindings"}
    assert folders_with("torch|ATen|c10") == set()


def test_the_shortest_turn_of_a_loop() -> None:
    """Past the load and the logarithm, and not by the detour."""
    sass = benchmark("sass")
    lines = (
        "MOV R1, c[0x0]", "@P0 BRA 0x0090", "LDG.E.128.CONSTANT R4, [R2.64]", "@!P1 BRA 0x0050",
        "LDG.E R5, [R2.64]", "@P2 BRA 0x0070", "MUFU.LG2 R6, R6", "FADD R4, R4, R5",
        "@P3 BRA 0x0010", "EXIT",
    )  # fmt: skip
    listing = "\n".join(f"        /*{16 * i:04x}*/    {line} ;" for i, line in enumerate(lines))
    code = sass.parse(listing)
    assert [instruction.text for instruction in code] == list(lines)
    assert sass.loop_length(code) == 7  # all but the start, the narrow load and the end
    assert sass.loop_length(code[:6]) is None
