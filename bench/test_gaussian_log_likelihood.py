"""``gaussian_log_likelihood``: the decoder's log-density."""

import pytest

from bench.conftest import Report
from bench.ops import DIRECTIONS, SIZES, Size
from bench.workload import PEERS


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gaussian_log_likelihood(report: Report, size: Size, direction: str, peer: str) -> None:
    report("gaussian_log_likelihood", size, direction, peer)
