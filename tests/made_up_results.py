"""Results as ``bench.run`` writes them, with made-up figures."""

from __future__ import annotations

from typing import Any

from bench.ops import OPS
from bench.results import SCHEMA

MACHINE = {
    "device": "Test CPU", "accelerator": None, "backend": "cpu", "cores": 2,
    "system": "Linux x86_64",
    "python": "3.11", "torch": "2.13", "vae_fast": "0.1.0", "compiler": "GNU", "flags": "-O3",
    "instruction_set": "avx2",
}  # fmt: skip
FACTORS = {"vae_fast": 1.0, "eager": 4.0, "compiled": 2.0}
OTHERS = ("torch.distributions",)


def spread(middle: float, width: float = 0.02) -> list[float]:
    return [middle * (1 - width), middle, middle * (1 + width)]


def row(
    op: str, size: str, direction: str, seconds: float, others: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    factors = FACTORS | dict.fromkeys(others, 5.0)
    made = {
        "op": op, "size": size, "dtype": "float32", "direction": direction, "threads": 2,
        "rounds": 9, "compile_seconds": {"compiled": 2.0}, "least_bytes": 1000,
        "limit_seconds": 0.5 * seconds, "of_limit": 0.5,
        "seconds": {peer: spread(factor * seconds) for peer, factor in factors.items()},
        "ratios": {peer: spread(f) for peer, f in factors.items() if peer != "vae_fast"},
    }  # fmt: skip
    return made | more


def _curve(op: str) -> list[dict[str, Any]]:
    return [
        row(op, f"2^{power}", direction, max(5e-5, 1e-9 * 2**power), OTHERS, elements=2**power)
        for power in range(10, 26, 2)
        for direction in OPS[op].directions
    ]


def results() -> dict[str, Any]:
    return {
        "schema": SCHEMA, "machine": dict(MACHINE), "date": "2026-01-31", "load_at_start": 0.0,
        "quick": False, "peers": {"pythae": "0.1.2"},
        "skipped": {"diffusers": "diffusers is not installed; pip install it"},
        "first_compilation_seconds": 10.0, "copy_bandwidth": {"2": 2e10, "1": 1e10},
        "floors": [
            {
                "op": "sample_kl", "size": "128x20", "direction": "both",
                "seconds": {"vae_fast": spread(9e-5), "empty": spread(5e-5)},
            }
        ],
        "comparisons": [
            row("sample_kl", "128x20", "both", 9e-5, ("torch.distributions",)),
            row("negative_elbo", "256x12288", "both", 2e-3, ("GaussianNLLLoss",)),
            row("sample_kl", "128x20", "both", 1e-4, threads=1),
            row("mlp784", "128x784", "step", 1e-2, ("pyro",), limit_seconds=None, of_limit=None),
        ],
        "curves": [made for op in ("sample_kl", "negative_elbo", "noise") for made in _curve(op)],
        "memory": [
            {
                "op": "elbo", "size": "4096x128+3072", "dtype": "float32",
                "bytes": {"vae_fast": 2**20, "eager": 3 * 2**20, "compiled": None},
            }
        ],
        "counts": [
            {
                "op": "mlp784", "size": "128x784", "dtype": "float32",
                "calls": {"vae_fast": 10, "eager": 80},
                "shares": {
                    "vae_fast": {"outside_matrix_products": 0.3, "optimiser": 0.2}, "eager": None,
                },
            }
        ],
        "noise_ns": {"avx2": 1.25, "torch.randn": 4.0},
        "targets": [["work", "eager", "2x", "4.00x", "reached"]],
    }  # fmt: skip
