"""How many times faster than its peers each op is to be, in one run on all cores."""

from __future__ import annotations

from typing import NamedTuple

from bench.harness import Comparison
from bench.workload import COMPILED, EAGER, OURS


class Target(NamedTuple):
    op: str
    label: str  # of the size
    direction: str
    at_least: dict[str, float]  # ratio to each peer


TARGETS = (
    Target("sample_kl", "4096x128", "both", {EAGER: 5.0, COMPILED: 5.0}),
    Target("sample_kl", "128x20", "both", {EAGER: 2.5}),
    Target("negative_elbo", "256x12288", "both", {EAGER: 5.0, COMPILED: 2.0}),
    Target("negative_elbo", "128x784", "both", {EAGER: 4.0, COMPILED: 4.0}),
    Target("training_step", "128x784", "step", {EAGER: 1.0}),
)


class Verdict(NamedTuple):
    target: Target
    peer: str
    wanted: float
    got: float

    @property
    def reached(self) -> bool:
        return self.got >= self.wanted

    def row(self) -> tuple[str, ...]:
        op, label, direction, _ = self.target
        return (
            f"{op} {label} {direction}",
            self.peer,
            f"{self.wanted:g}x",
            f"{self.got:.2f}x",
            "reached" if self.reached else "not reached",
        )


def judge(op: str, label: str, direction: str, comparison: Comparison) -> list[Verdict]:
    """The verdicts on one comparison; none where there is no target for it."""
    return [
        Verdict(target, peer, wanted, comparison.ratio(peer, OURS).middle)
        for target in TARGETS
        if target[:3] == (op, label, direction)
        for peer, wanted in target.at_least.items()
    ]
