"""Streams: work goes to the current one, and waits for nothing."""

from __future__ import annotations

import pytest
import torch
from work import assert_identical, every_op, inputs


def test_the_current_stream_is_used(gpu_backend: str) -> None:
    """Its queue has yet to make the inputs: a kernel on another stream would read NaN."""
    given = inputs()
    seed = torch.ones((), dtype=torch.int64, device="cuda")
    want = every_op(given, gpu_backend, seed)
    stream = torch.cuda.Stream()
    values = {name: t.detach().clone() for name, t in given.items()}
    torch.cuda.synchronize()
    with torch.cuda.stream(stream), torch.no_grad():
        for tensor in given.values():
            tensor.fill_(float("nan"))
        torch.cuda._sleep(50_000_000)
        for name, tensor in given.items():
            tensor.copy_(values[name])
    with torch.cuda.stream(stream):
        made = every_op(given, gpu_backend, seed)
    stream.synchronize()
    assert_identical(want, made)


def test_streams_side_by_side(gpu_backend: str) -> None:
    sets = [inputs(rows) for rows in (64, 257, 1024)]
    seed = torch.ones((), dtype=torch.int64, device="cuda")
    want = [every_op(given, gpu_backend, seed) for given in sets]
    streams = [torch.cuda.Stream() for _ in sets]
    torch.cuda.synchronize()
    for _ in range(10):
        made = []
        for given, stream in zip(sets, streams, strict=True):
            with torch.cuda.stream(stream):
                made.append(every_op(given, gpu_backend, seed))
        torch.cuda.synchronize()
        for first, other in zip(want, made, strict=True):
            assert_identical(first, other)


def test_nothing_waits_for_the_device(gpu_backend: str) -> None:
    given = inputs()
    every_op(given, gpu_backend)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        every_op(given, gpu_backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_another_device_than_the_current_one(gpu_backend: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    given = inputs()
    seed = torch.ones((), dtype=torch.int64, device="cuda:0")
    want = every_op(given, gpu_backend, seed)
    elsewhere = {
        n: t.detach().to("cuda:1").requires_grad_(t.requires_grad) for n, t in given.items()
    }
    made = every_op(elsewhere, gpu_backend, seed.to("cuda:1"))
    assert_identical({name: t.cpu() for name, t in want.items()},
                     {name: t.cpu() for name, t in made.items()})  # fmt: skip
