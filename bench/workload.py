"""An op at a size, ready to be timed: compiled, checked against float64 and warm."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from bench import harness, parity
from bench.ops import Inputs, Op, Size, run_backward

OURS, EAGER, COMPILED = PEERS = ("vae_fast", "eager", "compiled")

LAST_LEVEL_CACHE = 32 * 2**20  # bytes, of the machines that this has run on
OWN_CACHES = 2 * 2**20  # bytes, of two cores together


class Workload:
    """``op`` at ``size`` by every peer, on the number of threads that torch has now."""

    def __init__(self, op: Op, size: Size) -> None:
        self.op, self.label = op, size.label(op)
        first = op.inputs(size)
        bytes_each = sum(t.numel() * t.element_size() for t in first.arguments)
        # What fits the cores' own caches comes from there in a model as well.
        count = 2 if bytes_each < OWN_CACHES else 1 + 2 * LAST_LEVEL_CACHE // bytes_each
        self.copies = [first, *(op.inputs(size) for _ in range(max(count, 2) - 1))]
        torch._dynamo.reset()  # or the second size would be compiled for any size
        self.functions = {OURS: op.ours, EAGER: op.eager, COMPILED: torch.compile(op.eager)}
        self.compile_seconds = self._first_call(first)
        parity.check(op, first, self.functions, self.label)

    def _first_call(self, inputs: Inputs) -> float:
        """Seconds until the compiled peer has done its first forward and backward pass."""
        start = time.perf_counter()
        outputs = self.functions[COMPILED](*inputs.arguments)
        if "backward" in self.op.directions:
            run_backward(inputs, outputs)
        return time.perf_counter() - start

    def block(self, peer: str, direction: str) -> harness.Block:
        make = {"forward": self._forward, "backward": self._backward, "both": self._both}
        return make[direction](peer)

    def _forward(self, peer: str) -> harness.Block:
        function, copies = self.functions[peer], self.copies
        block = harness.timed(lambda number: function(*copies[number % len(copies)].arguments))

        def evaluation(calls: int) -> float:
            with torch.no_grad():
                return block(calls)

        return evaluation

    def _backward(self, peer: str) -> harness.Block:
        function, copies = self.functions[peer], self.copies

        def prepare(number: int) -> tuple[Inputs, tuple[Tensor, ...]]:
            inputs = copies[number % len(copies)]
            return inputs, function(*inputs.arguments)

        def run(prepared: Any) -> None:
            inputs, outputs = prepared
            inputs.clear()
            run_backward(inputs, outputs)

        return harness.timed_after(prepare, run)

    def _both(self, peer: str) -> harness.Block:
        function, copies = self.functions[peer], self.copies

        def run(number: int) -> None:
            inputs = copies[number % len(copies)]
            inputs.clear()
            run_backward(inputs, function(*inputs.arguments))

        return harness.timed(run)

    def compare(self, direction: str, seconds: float) -> harness.Comparison:
        return harness.interleave({peer: self.block(peer, direction) for peer in PEERS}, seconds)
