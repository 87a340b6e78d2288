"""The training step of the default ``FusedVAE(784)``: beside the same networks on plain ops."""

import pytest

from bench.conftest import Report
from bench.training_step import BATCHES
from bench.workload import PEERS


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("batch", BATCHES)
def test_training_step(report: Report, batch: int, peer: str) -> None:
    report("training_step", batch, "step", peer)
