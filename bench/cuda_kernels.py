"""What the CUDA compiler made of the kernels: registers, memory traffic and instructions of each.

``python -m bench.cuda_kernels`` compiles every ``csrc/cuda/*.cu`` for each default architecture,
prints the findings and writes the table of ``docs/performance/method.md``. It needs nvcc and
cuobjdump (of a CUDA toolkit, or the one inside the triton package), and no GPU: nothing is run, so
nothing here is a measured time.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench import report, sass, tables

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "csrc" / "cuda"
TABLE_ARCHITECTURE = "90"
FLAGS = ("-std=c++17", f"-I{ROOT / 'csrc'}", "-Xcompiler=-Wall,-Wextra", "-Werror=all-warnings")


class Kernel(NamedTuple):
    """One form of one kernel, for one architecture."""

    source: str
    name: str
    architecture: str
    registers: int
    shared: int  # bytes, static
    stack: int  # bytes
    spilled: int  # bytes
    instructions: int  # of all its paths
    turn: int | None  # of one turn of the loop over packs (sass.loop_length)
    wide_loads: int  # of 16 bytes
    wide_stores: int
    narrower: int  # loads and stores of global memory of less
    local: int  # accesses of local memory

    @property
    def elements(self) -> int:
        """Elements that a thread works on at a time: the integer among the template arguments."""
        found = re.search(r"[a-z_]\w*, (\d+)", self.name)
        return int(found.group(1)) if found else 1


def default_architectures() -> tuple[str, ...]:
    text = (ROOT / "csrc" / "cmake" / "cuda.cmake").read_text()
    found = re.search(r"foreach\(arch ([\d ]+)\)", text)
    assert found is not None
    return tuple(found.group(1).split())


def cuobjdump() -> str | None:
    """CUDA's disassembler: on PATH, beside nvcc, or the one that triton brings."""
    beside = [Path(nvcc).resolve().parent / "cuobjdump" for nvcc in [shutil.which("nvcc")] if nvcc]
    triton = importlib.util.find_spec("triton")
    if triton is not None and triton.origin is not None:
        beside.append(Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump")
    return shutil.which("cuobjdump") or next((str(p) for p in beside if p.exists()), None)


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _names(mangled: Iterable[str]) -> dict[str, str]:
    mangled = list(mangled)
    plain = subprocess.run(
        ["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    short = [re.sub(r"vae_fast::device::|\(anonymous namespace\)::|^void ", "", t) for t in plain]
    cut = [text.split(">(")[0] + ">" if "<" in text else text.split("(")[0] for text in short]
    return dict(zip(mangled, cut, strict=True))


def _usage(log: str) -> dict[str, tuple[int, int, int, int]]:
    """Registers, shared memory, stack and spilled bytes by mangled name, from ptxas -v."""
    pattern = re.compile(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
        re.DOTALL,
    )
    found = {}
    for name, stack, stores, loads, registers, rest in pattern.findall(log):
        shared = re.search(r"(\d+) bytes smem", rest)
        spilled = int(stores) + int(loads)
        found[name] = (int(registers), int(shared.group(1)) if shared else 0, int(stack), spilled)
    return found


def _count(pattern: str, code: str) -> int:
    return len(re.findall(pattern, code))


def compile_source(source: Path, architecture: str) -> list[Kernel]:
    """Every kernel of one file for one architecture; RuntimeError where there is a warning."""
    disassembler = cuobjdump()
    if disassembler is None:
        raise FileNotFoundError("cuobjdump was found neither on PATH nor in the triton package")
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        log = _run(
            "nvcc", *FLAGS, f"-arch=sm_{architecture}", "-cubin", "-Xptxas=-v", source, "-o", cubin
        )
        listing = _run(disassembler, "-sass", cubin)
    usage = _usage(log)
    bodies = re.findall(r"Function : (\w+)\n(.*?)(?=\n\s*Function : |\Z)", listing, re.DOTALL)
    names = _names(usage)
    kernels = []
    for mangled, body in bodies:
        instructions = [i for i in sass.parse(body) if not i.text.startswith("NOP")]
        code = "\n".join(instruction.text for instruction in instructions)
        wide_loads = _count(r"\bLDG[\w.]*\.128\b", code)
        wide_stores = _count(r"\bSTG[\w.]*\.128\b", code)
        kernels.append(
            Kernel(
                source.stem, names[mangled], architecture, *usage[mangled],
                instructions=len(instructions), turn=sass.loop_length(instructions),
                wide_loads=wide_loads, wide_stores=wide_stores,
                narrower=_count(r"\b(?:LDG|STG)\b", code) - wide_loads - wide_stores,
                local=_count(r"\b(?:LDL|STL)\b", code),
            )
        )  # fmt: skip
    return kernels


def sources() -> list[Path]:
    return [path for path in sorted(SOURCES.glob("*.cu")) if "__global__" in path.read_text()] + [
        path for path in sorted(SOURCES.glob("*.cu")) if "_launch.cuh" in path.read_text()
    ]


def compile_all(architectures: Iterable[str], jobs: int = 2) -> list[Kernel]:
    work = [(source, architecture) for architecture in architectures for source in sources()]
    with ThreadPoolExecutor(jobs) as pool:
        made = pool.map(lambda one: compile_source(*one), work)
        return [kernel for kernels in made for kernel in kernels]


def faults(kernel: Kernel) -> list[str]:
    """What a kernel must not have, and what one that works on packs of 16 bytes must."""
    found = [
        f"{what}: {count}"
        for what, count in (
            ("bytes of stack", kernel.stack),
            ("bytes spilled", kernel.spilled),
            ("accesses of local memory", kernel.local),
        )
        if count
    ]
    # A form without packs, or by columns in half precision, which moves 8 bytes at a time.
    if kernel.elements == 1 or re.search(r"__(?:half|nv_bfloat16), 4,", kernel.name):
        return found
    without_sample = re.search(r"gaussian_forward_kernel<Form<[^>]*>, false,", kernel.name)
    only_sums = "(Pass)0" in kernel.name or without_sample
    if kernel.source != "noise" and not kernel.wide_loads:
        found.append("no 16-byte load")
    if not only_sums and not kernel.wide_stores:
        found.append("no 16-byte store")
    return found


def table(kernels: Iterable[Kernel]) -> str:
    rows = (
        (
            f"`{k.source}`: `{k.name}`", str(k.registers), str(k.shared), str(k.instructions),
            "" if k.turn is None else f"{k.turn / k.elements:.0f}",
            f"{k.wide_loads} + {k.wide_stores}",
        )
        for k in kernels
        if k.architecture == TABLE_ARCHITECTURE
    )  # fmt: skip
    header = (
        "kernel", "registers", "static shared bytes", "instructions", "an element",
        "16-byte loads + stores",
    )  # fmt: skip
    return tables.table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_kernels", description=__doc__)
    parser.add_argument("architectures", nargs="*", help="default: all that a build has")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at once")
    options = parser.parse_args()
    chosen = options.architectures or default_architectures()
    kernels = compile_all(chosen, options.jobs)
    wrong = [(kernel, fault) for kernel in kernels for fault in faults(kernel)]
    for kernel, fault in wrong:
        print(f"sm_{kernel.architecture} {kernel.source} {kernel.name}: {fault}")
    print(f"{len(kernels)} kernels for {', '.join(chosen)}: {len(wrong)} faults")
    if TABLE_ARCHITECTURE in chosen:
        print(f"wrote {report.put({'cuda-kernels': table(kernels)})}")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
