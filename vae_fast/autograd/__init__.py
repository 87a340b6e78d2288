"""Autograd of the ops, a file each.

An op is a ``torch.autograd.Function`` around its backend. In eager mode the backend is called as it
is, outside the dispatcher, which costs more than a small kernel. The compiler, dispatch modes and
tensor subclasses (fake tensors among them) get the same Function around the same backend, whose
functions are registered ops then (``dispatched.py``).

Whoever has to see through an op gets the reference's formulas instead (``sees_through``), and so
does a backward pass that no kernel can run (``backward_backend``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vae_fast._backends import COMPOSED, reference
from vae_fast._storage import PLAIN, require_memory

if TYPE_CHECKING:
    from vae_fast.autograd.dispatched import Dispatched


def uses_dispatcher(*tensors: Tensor | None) -> bool:
    """Whether someone traces or wraps the call, and so must be shown what it is made of."""
    if (
        torch.compiler.is_dynamo_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._get_tracing_state() is not None
    ):
        return True
    # A loop: any() with a generator would take longer than all the other checks.
    for tensor in tensors:  # noqa: SIM110
        if tensor is not None and type(tensor) not in PLAIN:
            return True
    return False


def sees_through(backend: str, traced: bool) -> bool:
    """Whether the call is to be the reference's formulas, without a Function around them."""
    return backend == COMPOSED or (traced and backend == "reference")


def is_differentiated(*tensors: Tensor | None) -> bool:
    """Whether autograd looks at the call: in grad mode, or for forward mode, which goes on outside
    it and which a Function refuses."""
    if torch.is_grad_enabled():
        return True
    if torch.compiler.is_dynamo_compiling():  # which has no forward mode
        return False
    if torch._C._get_tracing_state() is not None:  # what is recorded may run in another mode
        return True
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply``, without the Python parts of it and of the backward pass.

    The first looks for torch.func's transforms. Under these no fused op is chosen
    (``_backends.choose``), and looking costs a small call 5 µs (AMD Zen 5). The second looks by
    which of two names the backward pass was defined, 0.5 µs.
    """
    function._backward_cls.apply = function.backward  # type: ignore[attr-defined]
    apply = super(torch.autograd.Function, function).apply  # type: ignore[misc]

    def call(*arguments: Any) -> Any:
        try:
            return apply(*arguments)
        except RuntimeError:  # a tensor of inference mode cannot be saved; its copy can
            copied = tuple(
                a.clone() if isinstance(a, Tensor) and a.is_inference() else a for a in arguments
            )
            if all(a is b for a, b in zip(arguments, copied, strict=True)):
                raise
        return apply(*copied)

    return call


def backward_backend(
    backend: ModuleType | Dispatched,
    upstream: Sequence[Tensor | None],
    saved: Sequence[Tensor | None],
) -> ModuleType | Dispatched:
    """Who makes the gradients: ``backend``, or the reference where no kernel can.

    Those are passes that are differentiated again (``create_graph=True``), that ``vmap`` maps over
    many gradients at once, or that get a tensor subclass from above though the forward pass had
    none. The reference's formulas take all three. ``saved`` are the tensors that they read then.

    Raises:
        TypeError: a gradient is sparse, or a tensor that the reference would read has no memory.
    """
    if not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active():
        if type(backend) is not ModuleType:
            return backend
        for gradient in upstream:
            # Of a tensor that a vmap of older kind maps over, only the missing memory tells.
            if gradient is not None and (
                type(gradient) not in PLAIN or not torch._C._has_storage(gradient)
            ):
                break
        else:
            return backend
    for gradient in upstream:
        if gradient is not None and gradient.layout is not torch.strided:
            raise TypeError(
                f"a gradient from above must be a strided tensor; got layout {gradient.layout}"
            )
    require_memory(*upstream, *saved)
    return reference
