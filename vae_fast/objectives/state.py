"""What an objective keeps in its model: tensors, on whose values compiled code does not depend."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_fast._checks import number
from vae_fast.objectives.schedules import Constant, Schedule, as_schedule

MOMENTUM = 0.9


class Scheduled(nn.Module):
    """The present value of a schedule.

    Its tensor is no buffer: it follows from the value, and averages or copies of a model's state
    are not to have another.
    """

    tensor: Tensor  # [], float64

    def __init__(self, name: str, schedule: float | Schedule) -> None:
        super().__init__()
        self.name = name
        self.schedule = as_schedule(name, schedule)
        self.value = 0.0
        self.tensor = torch.zeros((), dtype=torch.float64)
        self._write(self.schedule(0))

    def _write(self, value: float) -> None:
        self.value = float(number(self.name, value, 0))
        self.tensor.fill_(self.value)

    def on(self, device: torch.device) -> Tensor:  # []
        """The value where it is needed, also after a move that only took buffers along."""
        if self.tensor.device != device:
            self.tensor = torch.full((), self.value, dtype=torch.float64, device=device)
        return self.tensor

    def set_step(self, step: int) -> None:
        if not isinstance(self.schedule, Constant):
            self._write(self.schedule(step))

    def set(self, value: float) -> None:
        """Take ``value`` from now on, in place of the schedule."""
        self._write(value)
        self.schedule = Constant(self.value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Scheduled:
        super()._apply(fn, recurse)
        # The value is written anew: a change of the module's dtype must not round it.
        self.tensor = fn(self.tensor).double().fill_(self.value)
        return self


def _mean(sums: Tensor, initial: float) -> Tensor:
    total, weight = sums.unbind()
    return torch.where(weight > 0, total / weight, initial)


def _add(sums: Tensor, value: Tensor) -> None:
    value = value.to(sums.dtype)
    sums.lerp_(torch.stack([value, torch.ones_like(value)]), 1 - MOMENTUM)


def _run_exchange(sums: Tensor, value: Tensor, initial: float) -> Tensor:
    before = _mean(sums, initial).to(value.dtype)
    _add(sums, value)
    return before


# An op of its own, as the compiler would leave reading the sums to the backward pass, where it
# needs the mean, although they are written to before.
_exchange = torch.library.custom_op(
    "vae_fast::exchange_running_mean",
    _run_exchange,
    mutates_args=("sums",),
    schema="(Tensor(a!) sums, Tensor value, float initial) -> Tensor",
)
_exchange.register_fake(lambda sums, value, initial: torch.empty_like(value))


class RunningMean(nn.Module):
    """An exponentially weighted mean of 0-dim tensors, which the state dict holds.

    Its weights sum to 1 from the first value on (the correction that Adam makes).
    """

    sums: Tensor  # [2], float64: of weights times values, and of weights

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.initial = initial  # the value of the mean of nothing
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))

    def value(self, dtype: torch.dtype) -> Tensor:  # []
        return _mean(self.sums, self.initial).to(dtype)

    @torch.no_grad()
    def update(self, value: Tensor) -> None:
        _add(self.sums, value)

    def exchange(self, value: Tensor) -> Tensor:  # [], of its dtype
        """The mean so far, to which ``value`` is added then."""
        if torch.compiler.is_exporting():  # a program has no backward pass
            return _run_exchange(self.sums, value, self.initial)
        return _exchange(self.sums, value, self.initial)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RunningMean:
        before = self.sums
        super()._apply(fn, recurse)
        # Nor round these; and where there were none yet, they are those of no values.
        if before.is_meta:
            self.sums = torch.zeros_like(self.sums, dtype=torch.float64)
        else:
            self.sums = before.to(self.sums.device)
        return self


def _not_theirs(name: str) -> str:
    return (
        f"the model's objective_state must be what the objective's make_state returns; it has no "
        f"{name}"
    )


class ObjectiveState(nn.Module):
    """Everything of this kind; None is what the objective has no use for."""

    def __init__(
        self,
        beta: float | Schedule | None = None,
        capacity: float | Schedule | None = None,
        groups: Tensor | None = None,
        running_mean: bool = False,
    ) -> None:
        super().__init__()
        self.beta = None if beta is None else Scheduled("beta", beta)
        self.capacity = None if capacity is None else Scheduled("capacity", capacity)
        # 0 is no baseline at all.
        self.running_mean = RunningMean(0.0) if running_mean else None
        # [G, D], bool: which latent dimensions belong to which group. No buffer either.
        self.groups = groups

    def of(self, name: str) -> Scheduled:
        """What has that name; ValueError where the state was made for another objective."""
        found: Scheduled | None = getattr(self, name)
        if found is None:
            raise ValueError(_not_theirs(name))
        return found

    def groups_on(self, device: torch.device) -> Tensor:
        if self.groups is None:
            raise ValueError(_not_theirs("groups"))
        if self.groups.device != device:
            self.groups = self.groups.to(device)
        return self.groups

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ObjectiveState:
        super()._apply(fn, recurse)
        if self.groups is not None:
            device = fn(self.groups).device
            if device.type != "meta":  # from where they would not come back
                self.groups = self.groups.to(device)
        return self

    def set_step(self, step: int) -> None:
        for scheduled in (self.beta, self.capacity):
            if scheduled is not None:
                scheduled.set_step(step)
