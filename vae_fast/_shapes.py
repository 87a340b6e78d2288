"""What the networks of a model take and return, checked."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from vae_fast._checks import integer
from vae_fast.autograd.split_parameters import split_parameters


def event_shape(name: str, value: int | Iterable[int], least: int = 1) -> tuple[int, ...]:
    """``value``, one size or ``least`` and more, of any kind of whole number, as Python ints."""
    kind: type[Exception] = ValueError
    try:
        sizes = value if isinstance(value, Iterable) else (value,)
        shape = tuple(integer(name, size, 1) for size in sizes)
        if len(shape) >= least:
            return shape
    except TypeError:
        kind = TypeError
    except ValueError:
        pass
    raise kind(f"{name} must be a positive int or a tuple of them; got {value!r}")


def mean_logvar(name: str, output: object, event_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``(mean, logvar)`` from a network that gives the two, or one tensor with both in dim 1."""
    if isinstance(output, Tensor):
        if output.dim() < 2 or output.shape[1] != 2 * event_shape[0]:
            raise ValueError(
                f"{name} must return (mean, logvar), or one tensor with both along dimension 1, "
                f"[N, {2 * event_shape[0]}, ...]; got shape {tuple(output.shape)}"
            )
        mean, logvar = split_parameters(output, 1)
    else:
        mean, logvar = pair(name, output, " or one tensor")
    check_event(f"the mean of {name}", mean, event_shape)
    check_event(f"the logvar of {name}", logvar, event_shape)
    return mean, logvar


def pair(name: str, output: object, otherwise: str = "") -> tuple[Tensor, Tensor]:
    if not isinstance(output, (tuple, list)) or len(output) != 2:
        raise ValueError(
            f"{name} must return (mean, logvar){otherwise}; got {type(output).__name__}"
        )
    mean, logvar = output
    return mean, logvar


def check_event(name: str, value: object, event_shape: tuple[int, ...]) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor; got {type(value).__name__}")
    if value.shape[1:] != event_shape:
        expected = ", ".join(map(str, ("N", *event_shape)))
        raise ValueError(f"{name} must have shape [{expected}]; got {tuple(value.shape)}")
