"""Autograd of the ops, a file each.

In eager mode an op is a ``torch.autograd.Function`` around its backend, outside the dispatcher,
which costs more than a small kernel. The compiler, dispatch modes and tensor subclasses (fake
tensors among them) get the same functions as registered ops, ``torch.ops.vae_fast.*``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends
from vae_fast._control import KLControl

_PLAIN = (Tensor, torch.nn.Parameter, torch.nn.Buffer)


def uses_dispatcher(*tensors: Tensor | None) -> bool:
    """Whether the call must go through the registered op: someone traces or wraps it."""
    if torch.compiler.is_dynamo_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return True
    # A loop: any() with a generator would take longer than all the other checks.
    for tensor in tensors:  # noqa: SIM110
        if tensor is not None and type(tensor) not in _PLAIN:
            return True
    return False


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply``, without the Python parts of it and of the backward pass.

    The first looks for torch.func's transforms. Under these no fused op is chosen
    (``_backends.choose``), and looking costs a small call 5 µs (AMD Zen 4). The second looks by
    which of two names the backward pass was defined, 0.5 µs.
    """
    function._backward_cls.apply = function.backward  # type: ignore[attr-defined]
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


def _refusal(op: str) -> RuntimeError:
    return RuntimeError(
        f"{op} was differentiated twice, and its fused backward pass has no derivative; use "
        'backend="reference", which is differentiable to any order'
    )


class _RefuseDoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: str, gradient: Tensor, *_inputs: Tensor | None) -> Tensor:
        ctx.op = op
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_gradients: Tensor) -> Any:
        raise _refusal(ctx.op)


def first_order(
    op: str, gradients: Sequence[Tensor | None], *inputs: Tensor | None
) -> tuple[Tensor | None, ...]:
    """``gradients``, which raise where they are differentiated again (gradients of ``inputs``).

    For a backward pass in which autograd records: only under ``create_graph=True``.
    """
    return tuple(
        None if g is None else _RefuseDoubleBackward.apply(op, g, *inputs) for g in gradients
    )


def register(
    op: str,
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    tags: Sequence[torch.Tag] = (),
) -> Any:
    """Registers ``vae_fast::<op>`` for every device, with the function that tells its shapes."""
    registered = torch.library.custom_op(
        f"vae_fast::{op}", run, mutates_args=(), schema=schema, tags=tags
    )
    registered.register_fake(fake)
    return registered


def register_backward(
    op: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]
) -> Any:
    """``register`` for a backward pass: differentiating it again is refused."""

    def refuse(_ctx: Any, *_gradients: Tensor) -> Any:
        raise _refusal(op.removesuffix("_backward"))

    registered = register(op, schema, run, fake)
    registered.register_autograd(refuse, setup_context=lambda ctx, inputs, output: None)
    return registered


def runner(function: str) -> Callable[..., Any]:
    """The backend's function as a registered op calls it: bounds apart, the backend's name last."""

    def run(*arguments: Any) -> Any:
        *options, logvar_min, logvar_max, backend = arguments
        return getattr(_backends.get(backend), function)(*options, (logvar_min, logvar_max))

    return run


def backward_runner(function: str) -> Callable[..., tuple[Tensor, ...]]:
    """``runner`` for a backward pass, whose last argument says which gradients are needed.

    Registered ops return tensors only: an empty one stands for a gradient not asked for.
    """

    def run(*arguments: Any) -> tuple[Tensor, ...]:
        *options, logvar_min, logvar_max, backend, needs = arguments
        gradients = getattr(_backends.get(backend), function)(
            *options, (logvar_min, logvar_max), tuple(needs)
        )
        return as_tensors(gradients, options)

    return run


def as_tensors(gradients: Sequence[Tensor | None], inputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """The gradients, an empty tensor for each that was not asked for."""
    like = next(t for t in inputs if isinstance(t, Tensor))
    return tuple(like.new_empty(0) if g is None else g for g in gradients)


def with_control(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments of a registered op with a KL, its last five as the backends take them."""
    *others, logvar_min, logvar_max, floor, posterior_weight, prior_weight = arguments
    return *others, (logvar_min, logvar_max), KLControl(floor, posterior_weight, prior_weight)


def fake_gradients(
    needs: Sequence[bool], upstream: Sequence[Tensor | None], inputs: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """What ``backward_runner`` returns, by shape: a gradient of each needed input."""
    like = next(t for t in (*upstream, *inputs) if t is not None)
    return tuple(
        t.new_empty(t.shape) if need and t is not None else like.new_empty(0)
        for need, t in zip(needs, inputs, strict=True)
    )


def asked_for(needs: Sequence[bool], gradients: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients with None for those not asked for."""
    return tuple(g if need else None for need, g in zip(needs, gradients, strict=True))
