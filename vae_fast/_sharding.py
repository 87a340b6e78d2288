"""Methods of a model that need its parameters, where FSDP has cut them up."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
_INSIDE = "_parameters_are_whole"


def is_fully_sharded(module: nn.Module) -> bool:
    """Whether ``fully_shard`` was applied to it, of which no module is imported here for that."""
    return hasattr(type(module), "set_reshard_after_backward")


@contextmanager
def inside(module: nn.Module) -> Iterator[None]:
    """Within it the parameters are whole already, as FSDP makes them for ``forward``."""
    before = module.__dict__.get(_INSIDE, False)
    module.__dict__[_INSIDE] = True
    try:
        yield
    finally:
        module.__dict__[_INSIDE] = before


def with_whole_parameters(
    method: Callable[Concatenate[M, P], T],
) -> Callable[Concatenate[M, P], T]:
    """``method``, for which FSDP makes parameters whole as it does for ``forward`` alone."""

    @functools.wraps(method)
    def run(self: M, *args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            return method(self, *args, **kwargs)
        if is_fully_sharded(self) and not self.__dict__.get(_INSIDE, False):
            return _gathered(self, method, args, kwargs)
        try:
            return method(self, *args, **kwargs)
        except (RuntimeError, ValueError) as error:
            if not _is_flattened(self):
                raise
            raise RuntimeError(
                f"{method.__name__} needs whole parameters, and FullyShardedDataParallel makes "
                f"them whole for forward alone: call {method.__name__} of the module inside it "
                "within FullyShardedDataParallel.summon_full_params"
            ) from error

    return run  # type: ignore[return-value]


def _gathered(module, method, args, kwargs):  # type: ignore[no-untyped-def]
    from torch.distributed.fsdp import register_fsdp_forward_method

    name = "_run_gathered"
    if name not in module.__dict__:
        # Bound to the module by FSDP, which gathers before it and frees after it.
        module.__dict__[name] = functools.partial(_call, module)
        register_fsdp_forward_method(module, name)
    with inside(module):
        result = module.__dict__[name](method, *args, **kwargs)
    if not torch.is_grad_enabled():
        module.reshard()
    return result


def _call(module, method, *args, **kwargs):  # type: ignore[no-untyped-def]
    return method(module, *args, **kwargs)


def _is_flattened(module: nn.Module) -> bool:
    """Whether FSDP's older wrapper holds its parameters as pieces, which have one dimension."""
    parameters = list(module.parameters())
    marked = any(hasattr(parameter, "_fsdp_flattened") for parameter in parameters)
    return ("_flat_param" in module._parameters or marked) and all(p.dim() == 1 for p in parameters)
