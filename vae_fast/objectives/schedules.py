"""Weights that change with the optimiser's step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vae_fast.objectives._values import number, whole


class Schedule:
    """A weight as a function of the optimiser's step; subclasses give its value.

    Nothing is counted here: the same step always has the same value, so that a resumed run goes on
    with the values of an uninterrupted one.
    """

    def __call__(self, step: int) -> float:
        """The value, finite and at least 0, at ``step`` 0, 1, 2, ..."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every step."""

    value: float

    def __post_init__(self) -> None:
        number("value", self.value)

    def __call__(self, step: int) -> float:
        return float(self.value)


@dataclass(frozen=True)
class _Ramp(Schedule):
    """From ``start`` at step 0 to ``end`` at step ``steps``, and ``end`` from then on."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        number("start", self.start)
        number("end", self.end)
        whole("steps", self.steps)

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return float(self.end)
        return self.start + (self.end - self.start) * self._shape(step / self.steps)

    def _shape(self, part: float) -> float:
        raise NotImplementedError


class Linear(_Ramp):
    """Along a straight line from ``start`` to ``end`` in ``steps`` steps, then ``end``.

    Source: Bowman et al. 2016, "Generating sentences from a continuous space" (for the KL's
    weight); Burgess et al. 2018, "Understanding disentangling in β-VAE" (for its capacity).
    """

    def _shape(self, part: float) -> float:
        return part


class Cosine(_Ramp):
    """Along half a cosine from ``start`` to ``end`` in ``steps`` steps, then ``end``."""

    def _shape(self, part: float) -> float:
        return 0.5 * (1 - math.cos(math.pi * part))


@dataclass(frozen=True)
class Cyclical(Schedule):
    """In each cycle of ``period`` steps a straight line from ``start`` to ``end``, then ``end``.

    The line takes the first ``ratio`` of a cycle. After ``cycles`` cycles (None: never) the value
    stays at ``end``.

    Source: Fu et al. 2019, "Cyclical annealing schedule: a simple approach to mitigating KL
    vanishing", equation 6.
    """

    start: float
    end: float
    period: int
    cycles: int | None = None
    ratio: float = 0.5

    def __post_init__(self) -> None:
        number("start", self.start)
        number("end", self.end)
        whole("period", self.period)
        if self.cycles is not None:
            whole("cycles", self.cycles)
        number("ratio", self.ratio, 0, 1)
        if self.ratio == 0:
            raise ValueError(f"ratio must be above 0; got {self.ratio!r}")

    def __call__(self, step: int) -> float:
        cycle, place = divmod(step, self.period)
        part = place / (self.ratio * self.period)
        if part >= 1 or (self.cycles is not None and cycle >= self.cycles):
            return float(self.end)
        return self.start + (self.end - self.start) * part


def as_schedule(name: str, value: float | Schedule) -> Schedule:
    """``value`` as a schedule; ValueError, naming it, where it is neither that nor a number."""
    if isinstance(value, Schedule):
        return value
    number(name, value)
    return Constant(value)
