"""What a call of the CUDA backend does before its launches: ``python -m bench.launch_path``.

Needs no GPU. The backend's own Python and C++ run over CUDA's runtime as ``tests/cuda_host`` has
it, whose launches run nothing: left out are the time that CUDA itself takes for a launch, and a
seed drawn on the device. Beside it, an ``autograd.Function`` that computes nothing (``floor.py``).
Writes the table of ``docs/performance/method.md``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import MappingProxyType

import torch

from bench import floor, harness, peers, report, tables
from bench.device import Setting
from bench.ops import OPS
from bench.workload import Workload
from vae_fast import _backends

TESTS = Path(__file__).parents[1] / "tests"
NAMES = ("sample_kl", "gaussian_kl", "gaussian_log_likelihood", "negative_elbo", "elbo")
SECONDS = 2.0


def _host_backend() -> str:
    """The name of the backend whose launches run nothing."""
    sys.path.append(str(TESTS))
    host = importlib.import_module("cuda_host")
    host.kernels().set_runs(False)
    entry = _backends._Entry(("cpu",), "launches that run nothing")
    _backends._TABLE = MappingProxyType({**_backends._TABLE, host.NAME: entry})
    _backends._loaded[host.NAME] = host.backend()
    return host.NAME


def measure(backend: str) -> list[tuple[str, harness.Comparison]]:
    """Forward, and forward and backward, of each op at its smallest size, on one thread."""
    setting = Setting("cpu", torch.float32, backend)
    rows = []
    with harness.threads(1):
        for name in NAMES:
            work = Workload(OPS[name], OPS[name].sizes[0], setting, (peers.OURS,), check=False)
            work.add_empty()
            for direction in ("forward", "both"):
                rows.append(
                    (f"`{name}` {work.label} {direction}", work.compare(direction, SECONDS))
                )
    return rows


def main() -> None:
    rows = [
        (name, *(tables.show_time(took.seconds(peer).middle) for peer in (peers.OURS, floor.EMPTY)))
        for name, took in measure(_host_backend())
    ]
    text = tables.table(("work", "before the launches", "empty Function"), rows)
    report.put_of_one_core("launch-path", text)


if __name__ == "__main__":
    main()
