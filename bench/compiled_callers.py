"""What the ops cost in compiled code: ``python -m bench.compiled_callers``.

To the compiler an op is a call that it cannot see into, and small calls wait for the way there.
Forward and backward pass on one thread of the CPU: the op as it is, under ``torch.compile``, and
eager PyTorch under it. Writes the table of ``docs/performance/method.md``.
"""

from __future__ import annotations

import torch

from bench import harness, peers, report, tables
from bench.device import Setting
from bench.ops import OPS
from bench.workload import Workload

NAMES = ("sample_kl", "gaussian_kl", "gaussian_log_likelihood", "negative_elbo", "elbo")
COMPILED_OURS = f"{peers.OURS} {peers.COMPILED}"
SECONDS = 3.0


def measure(name: str, seconds: float) -> tuple[str, harness.Comparison]:
    """An op at its smallest size by the three."""
    op = OPS[name]
    work = Workload(op, op.sizes[0], Setting(), (peers.OURS, peers.COMPILED))
    work.add(COMPILED_OURS, torch.compile(work.functions[peers.OURS], fullgraph=True))
    work.check()
    return f"`{name}` {work.label}", work.compare("both", seconds)


def main() -> None:
    shown = (peers.OURS, COMPILED_OURS, peers.COMPILED)
    with harness.threads(1):
        rows = [
            (name, *(tables.show_time(took.seconds(peer).middle) for peer in shown))
            for name, took in (measure(name, SECONDS) for name in NAMES)
        ]
    header = ("work", "vae_fast", "vae_fast in compiled code", "compiled eager")
    report.put_of_one_core("compiled-callers", tables.table(header, rows))


if __name__ == "__main__":
    main()
