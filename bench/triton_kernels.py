"""The Triton kernels' registers, shared memory and instructions, proved without a GPU.

``python -m bench.triton_kernels`` compiles every variant for every target, reads what Triton's
assembler made of it with the disassembler in Triton's package, fails where one breaks a promise
(see ``broken``), and writes the table of ``docs/performance/method.md``. Some minutes a target;
``--quick`` compiles only what the table has. With ``--targets`` or ``--ops`` it writes no table.
Not under TRITON_INTERPRET=1, which has nothing to compile.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
import triton

from bench import report, tables
from bench.triton_variants import CALLS, OTHERS, PLAIN, TARGETS, Compiled, Variant, compiled

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
# Of a row or a program: a KL or log-likelihood, a part of the loss, the gradient of a KL.
ROW_STORES = 3
# Tensors of [N, D] that a kernel reads and writes: the least there are. Every other access is of a
# value a row or a program. Where two ops have a kernel in common, one is here by its own name.
TRIPS = {
    "sample_kl_fwd_kernel": (2, 1),
    "sample_kl_bwd_kernel": (3, 2),
    "gaussian_kl_fwd_kernel": (2, 0),
    "gaussian_kl_bwd_kernel": (2, 2),
    "gaussian_log_likelihood_fwd_kernel": (3, 0),
    "gaussian_log_likelihood_bwd_kernel": (3, 2),
    "negative_elbo_fwd_kernel": (3, 2),
    "sample_log_weights_fwd_kernel": (2, 1),
    "sample_log_weights_bwd_kernel": (3, 2),
    "score_function_bwd_kernel": (1, 2),
    "squared_error": (2, 0),
    "noise_kernel": (0, 1),
}


class Cost(NamedTuple):
    registers: int  # of a thread
    spilled: int  # bytes of a thread: of its stack, which holds nothing else
    shared: int  # bytes of a program
    instructions: int  # of a thread, each counted once


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern!r} in {text[:200]!r}")
    return int(found.group(1))


def _run(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _nvidia(kernel: Compiled) -> Cost:
    """Of the binary that Triton made: its assembler and options are other ones in each version."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "kernel.cubin")
        binary.write_bytes(kernel.asm["cubin"])
        code = _run(CUOBJDUMP, "-res-usage", "-sass", binary)
    return Cost(
        _number(r"\bREG:(\d+)", code),
        _number(r"\bSTACK:(\d+)", code),
        kernel.shared,
        len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?!NOP)", code, re.MULTILINE)),
    )


def _amd(kernel: Compiled) -> Cost:
    text = kernel.asm["amdgcn"]
    spilled = 4 * _number(r"\.vgpr_spill_count:\s*(\d+)", text)
    body = text.split("s_endpgm")[0]
    code = re.findall(r"^\s+(?:[svd]s?_|global_|flat_|buffer_|scratch_)\w+", body, re.MULTILINE)
    return Cost(_number(r"\.vgpr_count:\s*(\d+)", text), spilled, kernel.shared, len(code))


_known: dict[str, Cost] = {}


def cost(kernel: Compiled) -> Cost:
    """Of kernels that two variants share, found once."""
    nvidia = "ptx" in kernel.asm
    code = kernel.asm["ptx" if nvidia else "amdgcn"]
    if code not in _known:
        _known[code] = _nvidia(kernel) if nvidia else _amd(kernel)
    return _known[code]


def _accesses(kernel: Compiled, access: str) -> tuple[int, int]:
    """How many accesses to global memory a thread makes: of 16 bytes, and of fewer."""
    every = len(re.findall(rf"\b{access}\.global", kernel.asm["ptx"]))
    wide = len(re.findall(rf"\b{access}\.global\S*\.v4\.b32", kernel.asm["ptx"]))
    return wide, every - wide


def broken(kernel: Compiled, found: Cost) -> list[str]:
    """What a kernel does that it must not: spill; or, of aligned tensors in float32 or bfloat16,
    load or store an element other than once, in 16 bytes at a time (so neither noise nor standard
    deviation goes to memory)."""
    problems = []
    if found.spilled and "ptx" in kernel.asm:
        problems.append(f"spills {found.spilled} bytes a thread")
    # An op that has its kernel in common with another; the kernel that ends its sums is neither's.
    shared = None if kernel.kernel == "finish_kernel" else TRIPS.get(kernel.variant.op)
    trips = shared or TRIPS.get(kernel.kernel)
    if kernel.variant in PLAIN and trips is not None and "ptx" in kernel.asm:
        accesses = kernel.elements * kernel.variant.dtype.itemsize // 16 // kernel.threads
        for access, tensors in zip(("ld", "st"), trips, strict=True):
            wide, narrow = _accesses(kernel, access)
            if not accesses:
                problems.append(f"a thread has fewer than 16 bytes of a tensor to {access}")
            if wide != tensors * accesses:
                problems.append(f"{wide} wide {access}, where {tensors * accesses} are the least")
            if access == "st" and narrow > ROW_STORES:
                problems.append(f"{narrow} narrow st, where {ROW_STORES} are enough")
    return [f"{kernel.kernel} of {kernel.variant} for {kernel.target}: {p}" for p in problems]


class Row(NamedTuple):
    kernel: Compiled
    cost: Cost


def check(variants: tuple[Variant, ...], targets: tuple[str, ...]) -> tuple[list[Row], list[str]]:
    """Compiles and inspects them all; what there is to tell, and what is broken."""
    rows, problems = [], []
    for target in targets:
        for variant in variants:
            for kernel in compiled(variant, target):
                rows.append(Row(kernel, cost(kernel)))
                problems += broken(kernel, rows[-1].cost)
    return rows, problems


def _cell(row: Row) -> str:
    each = row.cost.instructions * row.kernel.threads / row.kernel.elements
    return f"{row.cost.registers}, {row.cost.shared} B, {each:.1f}"


def table(rows: list[Row]) -> str:
    """Registers of a thread, shared memory of a program, instructions an element."""
    cells: dict[tuple[str, torch.dtype], dict[str, str]] = {}
    for row in rows:
        if row.kernel.kernel in TRIPS and row.kernel.variant in PLAIN:
            key = (row.kernel.kernel.removesuffix("_kernel"), row.kernel.variant.dtype)
            # A loss has a pass for each reduction; the one with gradients comes first.
            cells.setdefault(key, {}).setdefault(row.kernel.target, _cell(row))
    lines = [
        (f"`{name}`", str(dtype).removeprefix("torch."), *(cell[target] for target in TARGETS))
        for (name, dtype), cell in cells.items()
    ]
    return tables.table(("kernel", "dtype", *TARGETS), lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.triton_kernels", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what the table has")
    parser.add_argument("--targets", nargs="*", default=TARGETS, choices=TARGETS)
    parser.add_argument("--ops", nargs="*", default=tuple(CALLS), choices=tuple(CALLS))
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        sys.exit("TRITON_INTERPRET=1 is set: there is nothing to compile")
    start = time.perf_counter()
    every = PLAIN if options.quick else (*PLAIN, *OTHERS)
    variants = tuple(variant for variant in every if variant.op in options.ops)
    rows, problems = check(variants, tuple(options.targets))
    print(*problems, sep="\n")
    print(
        f"{len(rows)} kernels of {len(variants)} variants compiled by Triton {triton.__version__} "
        f"for {', '.join(options.targets)} in {time.perf_counter() - start:.0f} s: "
        f"{len(problems)} broken promises"
    )
    if not problems and set(options.targets) == set(TARGETS) and set(options.ops) == set(CALLS):
        made = f"Triton {triton.__version__}, by `python -m bench.triton_kernels`."
        print(f"wrote {report.put({'triton-kernels': table(rows), 'triton-version': made})}")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
