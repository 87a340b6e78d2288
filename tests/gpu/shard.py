"""A pytest plugin: a share of the tests, until the time is over, and what became of them.

``VAE_FAST_SHARD=2/8`` runs the third of eight shares, each in an order of its own that is the same
each time; ``VAE_FAST_SHARD_SECONDS`` is when to start no more; ``VAE_FAST_SHARD_OUT``, the file.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

_index, _count = (int(part) for part in os.environ.get("VAE_FAST_SHARD", "0/1").split("/"))
_end = time.monotonic() + float(os.environ.get("VAE_FAST_SHARD_SECONDS", "inf"))
_late = "out of time"
_failed: list[str] = []
_counts = {"passed": 0, "failed": 0, "skipped": 0, "late": 0}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    random.Random(5).shuffle(items)
    others = [item for place, item in enumerate(items) if place % _count != _index]
    config.hook.pytest_deselected(items=others)
    items[:] = items[_index::_count]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.monotonic() > _end:
        pytest.skip(_late)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _counts["failed"] += 1
        _failed.append(report.nodeid)
    elif report.skipped:
        _counts["late" if _late in str(report.longrepr) else "skipped"] += 1
    elif report.when == "call":
        _counts["passed"] += 1


def pytest_sessionfinish(session: Any) -> None:
    out = os.environ.get("VAE_FAST_SHARD_OUT")
    if out:
        Path(out).write_text(json.dumps({**_counts, "failures": _failed}))
