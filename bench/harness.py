"""Timing of peers in turn, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median, quantiles
from typing import NamedTuple

import torch

# Times that many calls of one peer, in seconds; what it prepares is not in the time.
Block = Callable[[int], float]

BLOCK_SECONDS = 5e-3  # long enough that a change of peer (cold code, a waking thread) is little
MAX_CALLS = 64
MIN_ROUNDS = 7
MAX_ROUNDS = 400


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(low, median(values), high)


class Comparison(NamedTuple):
    """Seconds a call of each peer, one value a round: the rounds of all peers correspond."""

    rounds: dict[str, list[float]]
    calls: dict[str, int]  # in a block

    def seconds(self, peer: str) -> Spread:
        return Spread.of(self.rounds[peer])

    def ratio(self, peer: str, ours: str) -> Spread:
        """How many times longer ``peer`` takes, round by round."""
        pairs = zip(self.rounds[peer], self.rounds[ours], strict=True)
        return Spread.of([theirs / mine for theirs, mine in pairs])

    def without(self, peer: str) -> Comparison:
        """The rounds of the others."""
        names = [name for name in self.rounds if name != peer]
        return Comparison(
            {name: self.rounds[name] for name in names}, {name: self.calls[name] for name in names}
        )

    def ratios(self, ours: str) -> dict[str, Spread]:
        return {peer: self.ratio(peer, ours) for peer in self.rounds if peer != ours}


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def timed(call: Callable[[int], object], wait: Callable[[], None] = torch.cpu.synchronize) -> Block:
    """A block of ``call(0), call(1), ...``, each waited for; the number is for rotating inputs."""
    turn = 0

    def block(calls: int) -> float:
        nonlocal turn
        numbers = range(turn, turn + calls)
        turn += calls
        wait()
        start = time.perf_counter()
        for number in numbers:
            call(number)
            wait()
        return time.perf_counter() - start

    return block


def timed_after(
    prepare: Callable[[int], object],
    call: Callable[[object], object],
    wait: Callable[[], None] = torch.cpu.synchronize,
) -> Block:
    """A block of ``call(prepared)``; the clock stands still while each is prepared."""
    turn = 0

    def block(calls: int) -> float:
        nonlocal turn
        seconds = 0.0
        for number in range(turn, turn + calls):
            prepared = prepare(number)
            wait()
            start = time.perf_counter()
            call(prepared)
            wait()
            seconds += time.perf_counter() - start
        turn += calls
        return seconds

    return block


def _calls(block: Block) -> int:
    """How many calls make a block of the wanted length."""
    block(1)
    one = block(1)
    if one < BLOCK_SECONDS:
        one = min(one, *(block(1) for _ in range(4)))
    return min(MAX_CALLS, math.ceil(BLOCK_SECONDS / one))


def interleave(blocks: Mapping[str, Block], seconds: float) -> Comparison:
    """Rounds of one block a peer for about ``seconds``, the order rotating from round to round."""
    calls = {peer: _calls(block) for peer, block in blocks.items()}
    rounds: dict[str, list[float]] = {peer: [] for peer in blocks}
    order = list(blocks)
    # What exists already need not be traversed again by every garbage collection in a timed block.
    gc.collect()
    gc.freeze()
    try:
        end = time.perf_counter() + seconds
        for count in range(MAX_ROUNDS):
            if count >= MIN_ROUNDS and time.perf_counter() > end:
                break
            for peer in order:
                if calls[peer] > 1:
                    blocks[peer](1)  # brings its code and data back into the caches
                rounds[peer].append(blocks[peer](calls[peer]) / calls[peer])
            order.append(order.pop(0))
    finally:
        gc.unfreeze()
    return Comparison(rounds, calls)
