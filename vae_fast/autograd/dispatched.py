"""The backends' functions as registered ops, for whoever traces or wraps a call.

``vae_fast::<op>`` is the forward pass, and its derivative is the op's ``torch.autograd.Function``.
``vae_fast::<op>_backward`` is what the backends' function of that name does; where it is itself
differentiated, it is the reference's. They are registered without ``torch.library.custom_op``,
whose checks at every call and whose way through autograd would take as long as a small kernel.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vae_fast import _backends
from vae_fast._control import KLControl

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


def _as_meant(names: Sequence[str], given: Sequence[Any]) -> list[Any]:
    """What the package takes for an op's arguments of these names: ``_writable`` undone."""
    meant = []
    for name, argument in zip(names, given, strict=True):
        if type(argument) is list:
            argument = tuple(
                math.copysign(math.inf, x) if isinstance(x, float) and abs(x) == _LARGEST else x
                for x in argument
            )
        meant.append(KLControl(*argument) if name == "control" else argument)
    return meant


def names_of(schema: str) -> list[str]:
    """Of the arguments."""
    return [each.split()[-1] for each in schema.split(", ") if each]


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
    _library.define(op + schema, tags=(torch.Tag.pt2_compliant_tag, *tags))
    _library.impl(op, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"vae_fast::{op}", fake, lib=_library)
    return getattr(torch.ops.vae_fast, op).default


def _is_differentiated(given: Sequence[Any]) -> bool:
    tensors = [each for each in given if isinstance(each, Tensor)]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return True
    return torch._C._is_fwd_grad_enabled() and any(
        forward_ad.unpack_dual(t).tangent is not None for t in tensors
    )


def _derive(op: str, registered: Any, differentiated: Callable[..., Any]) -> None:
    """Makes ``differentiated`` what autograd does with a call of the op.

    Its first argument is who computes the call without autograd.
    """

    def run(keys: torch._C.DispatchKeySet, *given: Any) -> Any:
        def below() -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                return registered.redispatch(keys & torch._C._after_autograd_keyset, *given)

        return differentiated(below, *given) if _is_differentiated(given) else below()

    _library.impl(op, run, "Autograd", with_keyset=True)


def register_forward(
    op: str,
    arguments: str,
    returns: str,
    apply: Callable[..., Any],
    fake: Callable[..., Any],
    forward: Callable[..., Any],
) -> Callable[..., Any]:
    """Registers ``vae_fast::<op>``: who traces or wraps a call calls what this returns.

    Its arguments are followed by the backend's name. Without autograd it is ``forward``; with
    autograd ``apply``, which gets a ``Dispatched`` in place of the name. Where a returned tensor
    may be missing, the op returns a list of those that there are (``Tensor[]``), and so do ``fake``
    and ``apply``.
    """

    names = names_of(arguments)

    def run(*given: Any) -> Any:
        made = forward(*_as_meant(names, given[:-1]), given[-1])
        return made if returns != "Tensor[]" else list(_tensors(made))

    registered = register(op, f"({arguments}, str backend) -> {returns}", run, fake)

    def differentiated(below: Callable[[], Any], *given: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            raise _backends.transform_error(given[-1])
        backend = Dispatched(given[-1], below)
        made = apply(*_as_meant(names, given[:-1]), backend)
        backend.forward = None  # it holds the call's tensors
        return made

    _derive(op, registered, differentiated)
    return lambda *arguments: registered(*map(_writable, arguments))


def register_backward(function: str, arguments: str, inputs: Sequence[str]) -> None:
    """Registers the backends' backward ``function``, whose last argument says which gradients of
    ``inputs``, names among ``arguments``, are needed."""
    names = names_of(arguments)
    first = names.index(inputs[0])

    def run(*given: Any) -> list[Tensor]:
        needs, backend = given[-2:]
        made = getattr(_backends.get(backend), function)(
            *_as_meant(names, given[:-2]), tuple(needs)
        )
        return list(_tensors(made))

    def fake(*given: Any) -> list[Tensor]:
        tensors, needs = given[first : first + len(inputs)], given[-2]
        return [t.new_empty(t.shape) for need, t in zip(needs, tensors, strict=True) if need]

    schema = f"({arguments}, bool[] needs, str backend) -> Tensor[]"
    registered = register(function, schema, run, fake)
    _derive(function, registered, lambda _below, *given: run(*given[:-1], "reference"))


def _tensors(made: Any) -> Iterator[Tensor]:
    for each in made:
        if isinstance(each, Tensor):
            yield each
        elif each is not None:
            yield from _tensors(each)


class Dispatched:
    """The backend of that name, for the ``torch.autograd.Function`` of one call of a registered op.

    Its forward pass is that call without autograd; a backward pass is a call of the op for it.
    """

    def __init__(self, name: str, forward: Callable[[], Any] | None = None) -> None:
        self.name, self.forward = name, forward

    def __getattr__(self, function: str) -> Callable[..., Any]:
        def forward(*_arguments: Any) -> Any:
            assert self.forward is not None
            made = self.forward()
            return made if isinstance(made, Tensor) else tuple(made)

        def backward(*arguments: Any) -> tuple[Tensor | None, ...]:
            op = getattr(torch.ops.vae_fast, function).default
            gradients, needs = iter(op(*map(_writable, arguments), self.name)), arguments[-1]
            return tuple(next(gradients) if need else None for need in needs)

        return backward if function.endswith("_backward") else forward
