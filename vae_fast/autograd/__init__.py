"""Autograd of the ops, a file each.

An op is a ``torch.autograd.Function`` around its backend. In eager mode the backend is called as it
is, outside the dispatcher, which costs more than a small kernel. The compiler, dispatch modes and
tensor subclasses (fake tensors among them) get the same Function around the same backend, whose
functions are registered ops then (``dispatched.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

_PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)


def uses_dispatcher(*tensors: Tensor | None) -> bool:
    """Whether the call must go through registered ops: someone traces or wraps it."""
    if torch.compiler.is_dynamo_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    # A loop: any() with a generator would take longer than all the other checks.
    for tensor in tensors:  # noqa: SIM110
        if tensor is not None and type(tensor) not in _PLAIN:
            return True
    return False


def is_differentiated(*tensors: Tensor | None) -> bool:
    """Whether autograd looks at the call: in grad mode, or for forward mode, which goes on outside
    it and which a Function refuses."""
    if torch.is_grad_enabled():
        return True
    if torch.compiler.is_dynamo_compiling():  # which has no forward mode
        return False
    return any(t is not None and unpack_dual(t).tangent is not None for t in tensors)


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply``, without the Python parts of it and of the backward pass.

    The first looks for torch.func's transforms. Under these no fused op is chosen
    (``_backends.choose``), and looking costs a small call 5 µs (AMD Zen 5). The second looks by
    which of two names the backward pass was defined, 0.5 µs.
    """
    function._backward_cls.apply = function.backward  # type: ignore[attr-defined]
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


class _RefuseDoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: str, gradient: Tensor, *_inputs: Tensor | None) -> Tensor:
        ctx.op = op
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> Any:
        raise RuntimeError(
            f"{ctx.op} was differentiated twice, and its fused backward pass has no derivative; "
            'use backend="reference", which is differentiable to any order'
        )


def first_order(
    op: str, gradients: Sequence[Tensor | None], *inputs: Tensor | None
) -> tuple[Tensor | None, ...]:
    """``gradients``, which raise where they are differentiated again (gradients of ``inputs``).

    For a backward pass in which autograd records: only under ``create_graph=True``.
    """
    return tuple(
        None if g is None else _RefuseDoubleBackward.apply(op, g, *inputs) for g in gradients
    )
