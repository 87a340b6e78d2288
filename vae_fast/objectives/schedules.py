"""Weights that change with the optimiser's step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vae_fast._checks import integer, number


class Schedule:
    """A weight as a function of the optimiser's step; subclasses give its value.

    Nothing is counted here: the same step always has the same value, so that a resumed run goes on
    with the values of an uninterrupted one.
    """

    def __call__(self, step: int) -> float:
        """The value, finite and at least 0, at ``step`` 0, 1, 2, ..."""
        raise NotImplementedError


def settle(frozen: object, /, **fields: object) -> None:
    """Write the fields of a new frozen value, as the checks return them."""
    for name, field in fields.items():
        object.__setattr__(frozen, name, field)


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every step."""

    value: float

    def __post_init__(self) -> None:
        settle(self, value=number("value", self.value, 0))

    def __call__(self, step: int) -> float:
        return float(self.value)


@dataclass(frozen=True)
class _Ramp(Schedule):
    """From ``start`` at step 0 to ``end`` at step ``steps``, and ``end`` from then on."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        settle(
            self,
            start=number("start", self.start, 0),
            end=number("end", self.end, 0),
            steps=integer("steps", self.steps, 1),
        )

    def __call__(self, step: int) -> float:
        step = integer("step", step, 0)
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
        settle(
            self,
            start=number("start", self.start, 0),
            end=number("end", self.end, 0),
            period=integer("period", self.period, 1),
            cycles=None if self.cycles is None else integer("cycles", self.cycles, 1),
            ratio=number("ratio", self.ratio, 0, 1),
        )
        if self.ratio == 0:
            raise ValueError(f"ratio must be above 0; got {self.ratio!r}")

    def __call__(self, step: int) -> float:
        step = integer("step", step, 0)
        cycle, place = divmod(step, self.period)
        part = place / (self.ratio * self.period)
        if part >= 1 or (self.cycles is not None and cycle >= self.cycles):
            return float(self.end)
        return self.start + (self.end - self.start) * part


def weight(name: str, value: float | Schedule) -> float | Schedule:
    """``value``, a schedule or a number of any kind, the latter as a Python number."""
    return value if isinstance(value, Schedule) else number(name, value, 0)


def as_schedule(name: str, value: float | Schedule) -> Schedule:
    """``value`` as a schedule; an error, naming it, where it is neither that nor a number."""
    found = weight(name, value)
    return found if isinstance(found, Schedule) else Constant(found)
