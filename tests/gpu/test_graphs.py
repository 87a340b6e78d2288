"""CUDA graphs: captured, replayed on other inputs, with other noise at each replay."""

from __future__ import annotations

import torch
from work import assert_identical, every_op, inputs


def captured(given: dict[str, torch.Tensor], backend: str, seed: torch.Tensor | None):
    """A graph of every op, and the tensors that its replay fills."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, and lets the allocator and autograd settle
            every_op(given, backend, seed)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = every_op(given, backend, seed)
    return graph, made


def test_a_replay_computes_what_eager_code_does(gpu_backend: str) -> None:
    given = inputs()
    seed = torch.zeros((), dtype=torch.int64, device="cuda")
    graph, made = captured(given, gpu_backend, seed)
    for value in (3, 4):
        with torch.no_grad():
            seed.fill_(value)
            for tensor in given.values():
                tensor.mul_(0.9)
        graph.replay()
        assert_identical(
            {k: t.clone() for k, t in made.items()}, every_op(given, gpu_backend, seed)
        )


def test_each_replay_draws_its_own_noise(gpu_backend: str) -> None:
    graph, made = captured(inputs(), gpu_backend, None)
    draws = []
    for _ in range(4):
        graph.replay()
        draws.append(made["z"].clone())
    for index, first in enumerate(draws):
        for other in draws[index + 1 :]:
            assert not torch.equal(first, other)
