"""``negative_elbo``: the loss, whose gradients the forward pass makes."""

import pytest

from bench.conftest import Report
from bench.ops import DIRECTIONS, SIZES, Size
from bench.workload import PEERS


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_negative_elbo(report: Report, size: Size, direction: str, peer: str) -> None:
    report("negative_elbo", size, direction, peer)
