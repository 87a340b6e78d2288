"""``sample_kl``: the sample and its KL divergence."""

import pytest

from bench.conftest import Report
from bench.ops import DIRECTIONS, SIZES, Size
from bench.workload import PEERS


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sample_kl(report: Report, size: Size, direction: str, peer: str) -> None:
    report("sample_kl", size, direction, peer)
