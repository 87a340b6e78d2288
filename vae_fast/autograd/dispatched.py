"""The backends' functions as registered ops, for whoever traces or wraps a call.

``vae_fast::op_forward`` and ``vae_fast::op_backward`` do what the backends' functions of those
names do, and have no derivative. ``vae_fast::op`` is composed of them by the op's
``torch.autograd.Function``: who looks at what a call is made of, as the compiler does, sees them.
They are registered without ``torch.library.custom_op``, whose checks at every call and whose way
through autograd would take as long as a small kernel.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._broadcast import reductions

_library = torch.library.Library("vae_fast", "FRAGMENT")
_LARGEST = sys.float_info.max


def _writable(argument: Any) -> Any:
    """Numbers of a tuple as a program can be written with them: the largest one is infinity.

    AOTInductor writes JSON, which has no infinity.
    """
    if not isinstance(argument, tuple):
        return argument
    return tuple(
        math.copysign(_LARGEST, x) if isinstance(x, float) and abs(x) == math.inf else x
        for x in argument
    )


def _as_meant(argument: Any) -> Any:
    """What a backend takes for an op's argument: ``_writable`` undone."""
    if type(argument) is not list:
        return argument
    return tuple(
        math.copysign(math.inf, x) if isinstance(x, float) and abs(x) == _LARGEST else x
        for x in argument
    )


def _define(op: str, schema: str, key: str, run: Callable[..., Any], *tags: torch.Tag) -> Any:
    _library.define(op + schema, tags=(torch.Tag.pt2_compliant_tag, *tags))
    _library.impl(op, run, key)
    return getattr(torch.ops.vae_fast, op).default


def register(
    op: str,
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    tags: Sequence[torch.Tag] = (),
) -> Any:
    """Registers ``vae_fast::<op>`` for every device, without a derivative, with the function that
    tells its shapes."""
    registered = _define(op, schema, "CompositeExplicitAutograd", run, *tags)
    torch.library.register_fake(f"vae_fast::{op}", fake, lib=_library)
    return registered


def register_composed(op: str, schema: str, run: Callable[..., Any]) -> Any:
    """Registers ``vae_fast::<op>``, which is what ``run`` makes of other ops."""
    registered = _define(op, schema, "CompositeImplicitAutograd", run)
    return lambda *arguments: registered(*map(_writable, arguments))


def _called(function: str, given: Sequence[Any], backend: str) -> Any:
    return getattr(_backends.get(backend), function)(*map(_as_meant, given))


def register_function(
    function: str, arguments: str, returns: str, fake: Callable[..., Any]
) -> None:
    """Registers the backends' ``function`` by its name.

    Its arguments are followed by the backend's name. Where it returns several tensors, or None for
    one that was not asked for, the op returns a list of those that there are (``Tensor[]``), and so
    does ``fake``.
    """

    def run(*given: Any) -> Any:
        made = _called(function, given[:-1], given[-1])
        return made if returns == "Tensor" else list(_tensors(made))

    register(function, f"({arguments}, str backend) -> {returns}", run, fake)


def register_backward(function: str, arguments: str, inputs: Sequence[str]) -> None:
    """Registers the backends' backward ``function``, whose last argument says which gradients of
    ``inputs``, names among ``arguments``, are needed. Those of mean and what follows it are sums to
    their inputs' shapes, which are looked at when the op runs: the compiler leaves sizes open.
    """
    names = [each.split()[-1] for each in arguments.split(", ")]
    first, mean, event_dims = (names.index(n) for n in (inputs[0], "mean", "event_dims"))
    last = first + len(inputs)

    def run(*given: Any) -> list[Tensor]:
        *options, needs, backend = given
        skipped = mean - first
        needs = *needs[:skipped], *reductions(
            needs[skipped:], options[mean:last], options[mean].shape, options[event_dims]
        )  # fmt: skip
        return list(_tensors(_called(function, (*options, needs), backend)))

    def fake(*given: Any) -> list[Tensor]:
        tensors, needs = given[first:last], given[-2]
        return [t.new_empty(t.shape) for need, t in zip(needs, tensors, strict=True) if need]

    register(function, f"({arguments}, bool[] needs, str backend) -> Tensor[]", run, fake)


def _tensors(made: Any) -> Iterator[Tensor]:
    for each in made:
        if isinstance(each, Tensor):
            yield each
        elif each is not None:
            yield from _tensors(each)


class Dispatched:
    """The backend of that name, its functions called as the registered ops."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, function: str) -> Callable[..., Any]:
        op = getattr(torch.ops.vae_fast, function).default

        def call(*arguments: Any) -> Any:
            made = op(*map(_writable, arguments), self._name)
            if isinstance(made, Tensor):
                return made
            if not function.endswith("_backward"):
                return tuple(made)
            gradients, needs = iter(made), arguments[-1]
            return tuple(next(gradients) if need else None for need in needs)

        return call
