"""``elbo``: both ops of a loss, without the networks around them."""

import pytest

from bench.conftest import Report
from bench.ops import DIRECTIONS, SIZES, Size
from bench.workload import PEERS


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_elbo(report: Report, size: Size, direction: str, peer: str) -> None:
    report("elbo", size, direction, peer)
