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
from torch._guards import TracingContext
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


def _reader(schema: str) -> Callable[[Sequence[Any]], list[Any]]:
    """A function that makes of an op's arguments what the package takes: ``_writable`` undone."""
    arguments, names = schema.split(", "), names_of(schema)
    lists = [place for place, each in enumerate(arguments) if each.startswith("float[]")]
    control = names.index("control") if "control" in names else None

    def read(given: Sequence[Any]) -> list[Any]:
        made = list(given)
        for place in lists:
            numbers = made[place]
            if _LARGEST in numbers or -_LARGEST in numbers:
                numbers = [math.copysign(math.inf, x) if abs(x) == _LARGEST else x for x in numbers]
            made[place] = tuple(numbers)
        if control is not None:
            made[control] = KLControl._make(made[control])
        return made

    return read


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
    forward_mode = forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()
    if not forward_mode and not torch.is_grad_enabled():
        return False
    for tensor in given:
        if isinstance(tensor, Tensor):
            if tensor.requires_grad and torch.is_grad_enabled():
                return True
            if forward_mode and forward_ad.unpack_dual(tensor).tangent is not None:
                return True
    return False


def _is_compiled() -> bool:
    """Whether torch.compile traces; no exporter, whose program may be differentiated later."""
    return TracingContext.try_get() is not None and not torch.compiler.is_exporting()


def _register_derived(
    op: str,
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    differentiated: Callable[..., Any],
) -> Any:
    """``register``, with ``differentiated`` as what autograd does with a call. Its first argument
    is who computes the call without autograd.

    Compiled code has the op's twin ``vae_fast::<op>_compiled``, which autograd knows nothing of:
    its derivative is in the code already, and asking for it at each call takes as long as a small
    kernel.
    """
    registered = register(op, schema, run, fake)
    twin = register(f"{op}_compiled", schema, run, fake)

    def through_autograd(keys: torch._C.DispatchKeySet, *given: Any) -> Any:
        def below() -> Any:
            if _is_compiled():
                return twin(*given)
            with torch._C._AutoDispatchBelowAutograd():
                return registered.redispatch(keys & torch._C._after_autograd_keyset, *given)

        return differentiated(below, *given) if _is_differentiated(given) else below()

    _library.impl(op, through_autograd, "Autograd", with_keyset=True)
    return registered


def register_forward(
    op: str,
    arguments: str,
    returns: str,
    apply: Callable[..., Any],
    fake: Callable[..., Any],
    forward: Callable[..., Any],
) -> Callable[..., Any]:
    """Registers ``vae_fast::<op>``: who traces or wraps a call calls what this returns.

    Its arguments are followed by the backend's name. Without autograd it is ``forward``, which gets
    the backend first; with autograd ``apply``, which gets a ``Dispatched`` in place of the name.
    Where a returned tensor may be missing, the op returns a list of those that there are
    (``Tensor[]``), and so do ``fake`` and ``apply``.
    """

    read = _reader(arguments)

    def run(*given: Any) -> Any:
        *meant, backend = read(given)
        made = forward(_backends.get(backend), *meant)
        return made if returns != "Tensor[]" else list(_tensors(made))

    def differentiated(below: Callable[[], Any], *given: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            raise _backends.transform_error(given[-1])
        backend = Dispatched(given[-1], below)
        made = apply(*read(given[:-1]), backend)
        backend.forward = None  # it holds the call's tensors
        return made

    schema = f"({arguments}, str backend) -> {returns}"
    registered = _register_derived(op, schema, run, fake, differentiated)
    return lambda *arguments: registered(*map(_writable, arguments))


def register_backward(function: str, arguments: str, inputs: Sequence[str]) -> None:
    """Registers the backends' backward ``function``, whose last argument says which gradients of
    ``inputs``, names among ``arguments``, are needed."""
    read, first = _reader(arguments), names_of(arguments).index(inputs[0])

    def run(*given: Any) -> list[Tensor]:
        *options, needs, backend = read(given)
        made = getattr(_backends.get(backend), function)(*options, tuple(needs))
        return list(_tensors(made))

    def fake(*given: Any) -> list[Tensor]:
        tensors, needs = given[first : first + len(inputs)], given[-2]
        return [t.new_empty(t.shape) for need, t in zip(needs, tensors, strict=True) if need]

    schema = f"({arguments}, bool[] needs, str backend) -> Tensor[]"
    _register_derived(
        function, schema, run, fake, lambda _below, *given: run(*given[:-1], "reference")
    )


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
