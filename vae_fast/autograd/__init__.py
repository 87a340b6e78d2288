"""Autograd of the ops: what an op is (``op.py``), and a file for each.

Whoever has to see through an op gets the reference's formulas in place of a kernel (``COMPOSED``),
and so does a backward pass that no kernel can run (``gradients``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vae_fast._backends import COMPOSED, Needs, reference
from vae_fast._storage import PLAIN, UnreadableError, is_plain, require_memory
from vae_fast.autograd.halves import with_halves

if TYPE_CHECKING:
    from vae_fast.autograd.dispatched import Dispatched


def is_watched(backend: str | None, tensors: Sequence[Tensor | None]) -> bool:
    """Whether someone traces, wraps or differentiates the call, and so must be shown what it is
    made of."""
    if (
        backend == COMPOSED
        or torch.compiler.is_dynamo_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._is_tracing()
    ):
        return True
    # A loop: any() with a generator would take longer than all the other checks.
    for tensor in tensors:  # noqa: SIM110
        if tensor is not None and type(tensor) not in PLAIN:
            return True
    return False


def is_differentiated(*tensors: Tensor | None) -> bool:
    """Whether autograd looks at the call: in grad mode, or for forward mode, which goes on outside
    it and which a Function refuses."""
    if torch.is_grad_enabled():
        return True
    if torch.compiler.is_dynamo_compiling():  # which has no forward mode
        return False
    if torch._C._is_tracing():  # what is recorded may run in another mode
        return True
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply``, without the Python parts of it and of the backward pass.

    The first looks for torch.func's transforms. Under these no fused op is chosen
    (``_backends.choose``), and looking costs a small call 5 µs (AMD Zen 5). The second looks by
    which of two names the backward pass was defined, 0.5 µs.
    """
    function._backward_cls.apply = function.backward  # type: ignore[attr-defined]
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


def require_strided(upstream: Tensor | None) -> None:
    """TypeError for a gradient from above of another layout."""
    if upstream is not None and upstream.layout is not torch.strided:
        raise TypeError(
            f"a gradient from above must be a strided tensor; got layout {upstream.layout}"
        )


def takes_kernels() -> bool:
    """Whether a backward pass is nothing but that: it is not differentiated, in neither mode, and
    no transform of torch.func is about, which would wrap what a kernel writes to."""
    return (
        not torch.is_grad_enabled()
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
    )


def gradients(
    backend: ModuleType | Dispatched,
    function: str,
    upstream: tuple[Tensor | None, ...],
    inputs: tuple[Any, ...],  # tensors, and None for those not given
    options: tuple[Any, ...],
    needs: tuple[bool, ...],
    event_dims: int | None,  # None: there is no log-variance
    mean: int = 0,  # its place among the inputs
) -> tuple[Tensor | None, ...]:
    """What the backend's backward ``function`` makes; or the reference's, where no kernel can.

    Those are passes that are differentiated (``create_graph=True``, or by a tangent), that a
    transform is about, such as ``vmap`` over many gradients at once, or that get a tensor subclass
    from above though the forward pass had none. The reference's formulas take them all.

    Raises:
        TypeError: a gradient is sparse, or a tensor that the reference would read has no memory.
    """
    if backend is not reference and takes_kernels():
        run = getattr(backend, function)
        if type(backend) is not ModuleType:
            return run(*upstream, *inputs, *options, needs)
        written: Needs = needs
        if event_dims is not None and not inputs[mean].is_contiguous():
            written = with_halves(needs, inputs[mean], inputs[mean + 1], event_dims, mean)
        try:
            return run(*upstream, *inputs, *options, written)
        except UnreadableError:
            if all(g is None or is_plain(g) for g in upstream):  # it was an input
                raise
    for gradient in upstream:
        require_strided(gradient)
    require_memory(*upstream, *inputs)
    return getattr(reference, function)(*upstream, *inputs, *options, needs)
