"""``noise``: beside ``torch.randn_like``."""

import pytest

from bench.conftest import Report
from bench.ops import SIZES, Size
from bench.workload import PEERS


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_noise(report: Report, size: Size, peer: str) -> None:
    report("noise", size, "forward", peer)
