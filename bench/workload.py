"""An op at a size, ready to be timed: compiled, checked against float64 and warm."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from bench import device, floor, harness, parity, peers
from bench.device import Setting
from bench.ops import Inputs, Maker, Op, Size, run_backward
from bench.peers import Function


class Workload:
    """``op`` at ``size`` by every peer that can, on the number of threads that torch has now.

    Args:
        names: of the peers, where not all are wanted.
        check: compare the results with float64, without which nothing is to be timed.
    """

    def __init__(
        self,
        op: Op,
        size: Size,
        setting: Setting,
        names: Collection[str] | None = None,
        check: bool = True,
    ) -> None:
        self.op, self.size, self.setting, self.label = op, size, setting, size.label(op)
        torch.manual_seed(0)  # the same numbers in every run
        self.wait = device.synchronizer(setting.device)
        make = Maker(setting)
        first = op.inputs(size, make)
        bytes_each = sum(t.nbytes for t in first.arguments)
        count = device.copies_of(bytes_each, setting.device)
        self.copies = [first, *(op.inputs(size, make) for _ in range(count - 1))]
        torch._dynamo.reset()  # or the second size would be compiled for any size
        self.functions: dict[str, Function] = {}
        self.compile_seconds: dict[str, float] = {}
        self.upstreams: dict[str, list[Inputs]] = {}
        self.wrong: dict[str, str] = {}  # of each peer that was left out, why
        for peer in peers.present(op.name, setting):
            if names is None or peer.name in names:
                self.functions[peer.name] = peers.function(peer, op.name, setting)
                seconds = self._first_call(peer.name)
                if peer.compiles:
                    self.compile_seconds[peer.name] = seconds
        if check:
            self.check()

    def check(self) -> None:
        """Every peer's outputs and gradients against float64: one that is wrong is left out.

        Raises:
            AssertionError: it is ours.
        """
        checks = parity.checks(self.op, self._inputs, self.functions, self.setting, self.label)
        self.wrong = parity.wrong(checks)
        for peer in self.wrong:
            del self.functions[peer], self.upstreams[peer]

    def _first_call(self, peer: str) -> float:
        """Seconds until the peer has done its first forward and backward pass."""
        start = time.perf_counter()
        outputs = self.functions[peer](*self.copies[0].arguments)
        self._match_upstream(peer, outputs)
        if "backward" in self.op.directions:
            run_backward(self._inputs(peer), outputs)
        self.wait()
        seconds = time.perf_counter() - start
        self.copies[0].clear()
        return seconds

    def clear(self, peer: str) -> None:
        """Frees the gradients that the peer's calls have left."""
        for inputs in self.upstreams[peer]:
            inputs.clear()

    def _match_upstream(self, peer: str, outputs: tuple[Tensor, ...]) -> None:
        """The peer's own leaves over the same memory, and upstream gradients for its outputs.

        Own ones, since a call frees the gradients of the one before: with large tensors that takes
        longer than some calls. Upstream gradients of its outputs' dtypes: autograd would convert
        others.
        """
        self.upstreams[peer] = [
            Inputs(
                tuple(t.detach().requires_grad_(t.requires_grad) for t in inputs.arguments),
                tuple(
                    None if given is None else given.to(output.dtype)
                    for given, output in zip(inputs.upstream, outputs, strict=False)
                ),
            )
            for inputs in self.copies
        ]

    def _inputs(self, peer: str, number: int = 0) -> Inputs:
        return self.upstreams[peer][number % len(self.copies)]

    def add_empty(self) -> None:
        """The peer that computes nothing: the floor of a small call."""
        self.add(floor.EMPTY, floor.empty(self.functions[peers.OURS](*self.copies[0].arguments)))

    def add(self, name: str, function: Function) -> None:
        """A function that is no peer, to be timed like one."""
        self.functions[name] = function
        self._first_call(name)

    def block(self, peer: str, direction: str) -> harness.Block:
        make = {"forward": self._forward, "backward": self._backward, "both": self._both}
        return make[direction](peer)

    def _forward(self, peer: str) -> harness.Block:
        function, copies = self.functions[peer], self.copies
        block = harness.timed(
            lambda number: function(*copies[number % len(copies)].arguments), self.wait
        )

        def evaluation(calls: int) -> float:
            with torch.no_grad():
                return block(calls)

        return evaluation

    def _backward(self, peer: str) -> harness.Block:
        function = self.functions[peer]

        def prepare(number: int) -> tuple[Inputs, tuple[Tensor, ...]]:
            inputs = self._inputs(peer, number)
            inputs.clear()
            return inputs, function(*inputs.arguments)

        def run(prepared: Any) -> None:
            run_backward(*prepared)

        return harness.timed_after(prepare, run, self.wait)

    def _both(self, peer: str) -> harness.Block:
        return harness.timed(self.step(peer), self.wait)

    def step(self, peer: str) -> Any:
        """A forward and a backward pass on the inputs of a number."""
        function, copies = self.functions[peer], self.upstreams[peer]
        if "backward" not in self.op.directions:
            return lambda number: function(*copies[number % len(copies)].arguments)

        last = copies[0]

        def run(number: int) -> None:
            nonlocal last
            last.clear()  # of one call at a time, as in training
            last = copies[number % len(copies)]
            run_backward(last, function(*last.arguments))

        return run

    def least_bytes(self, direction: str) -> int | None:
        return self.op.least_bytes(self.size, direction, self.setting.dtype)

    def compare(
        self,
        direction: str,
        seconds: float,
        names: Collection[str] | None = None,
        beside: Mapping[str, harness.Block] = MappingProxyType({}),
    ) -> harness.Comparison:
        """The peers of these names, by default all; ``beside`` takes its turn among them."""
        chosen = self.functions if names is None else names
        blocks = {peer: self.block(peer, direction) for peer in chosen}
        return harness.interleave({**blocks, **beside}, seconds)
