"""Tensors of every odd kind that torch can hand over, made of ordinary ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.masked import MaskedTensor
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._pytree import tree_map, tree_map_only


class Wrapped(Tensor):
    """A tensor without memory of its own, which does to the one within what is asked of it."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=inner.device
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(Wrapped, lambda t: t.inner, (args, kwargs or {}))
        return tree_map(lambda t: cls(t) if type(t) is Tensor else t, func(*args, **kwargs))


class Marked(Tensor):
    """A subclass that is plain memory."""


class Silent(Tensor):
    """One that torch's functions do not ask."""

    __torch_function__ = torch._C._disabled_torch_function_impl


def unwrapped(tensor: Tensor) -> Tensor:
    while isinstance(tensor, Wrapped | TwoTensor):
        tensor = tensor.inner if isinstance(tensor, Wrapped) else tensor.a
    if torch._is_functional_tensor(tensor):
        torch._sync(tensor)
        return torch._from_functional_tensor(tensor)
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return torch._C._functorch.get_unwrapped(tensor)
    return tensor.as_subclass(Tensor)


def _two(values: Tensor) -> Tensor:
    return TwoTensor(values.clone(), values.clone())


def _in_inference_mode(values: Tensor) -> Tensor:
    with torch.inference_mode():
        return values.clone()


def _cut(count: int, offset: int = 0) -> Callable[[Tensor], Tensor]:
    """A view of memory that is made shorter under it."""

    def make(values: Tensor) -> Tensor:
        memory = values.new_zeros(offset + values.numel())
        memory[offset:] = values.flatten()
        view = memory[offset:].view(values.shape)
        view.untyped_storage().resize_(count)
        return view

    return make


def _leaked(transform: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """A tensor of a transform that is over."""

    def make(values: Tensor) -> Tensor:
        found: list[Tensor] = []

        def inside(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor.sum() * 1.0

        transform(inside)(values)
        return found[0]

    return make


def _leaked_from_vmap(values: Tensor) -> Tensor:
    return _leaked(torch.func.vmap)(torch.stack([values, values]))


def _read_only(values: Tensor) -> Tensor:
    array = values.numpy().copy()
    array.flags.writeable = False
    return torch.from_numpy(array)


def _quantised(values: Tensor) -> Tensor:
    return torch.quantize_per_tensor(values.float(), 0.1, 0, torch.qint8)


def _nested(layout: torch.layout) -> Callable[[Tensor], Tensor]:
    return lambda values: torch.nested.nested_tensor(list(values[None]), layout=layout)


def _to(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda values: values.to(dtype)


class Kind(NamedTuple):
    make: Callable[[Tensor], Any]
    # "right", "fake" (of the right shape and dtype), "refused", "either" of right and refused; or
    # "any", where no result is the wrong one.
    expected: str
    by_torch: str = ""  # what plain PyTorch does with it, where that differs; "crash": skipped
    zero: bool = False  # its values are 0, whatever they are made of
    lines: bool = True  # whether an error has one line


REAL = {
    "two tensors": Kind(_two, "right"),
    "wrapper": Kind(Wrapped, "right"),
    "wrapper of a wrapper": Kind(lambda v: Wrapped(Wrapped(v)), "right"),
    "subclass": Kind(lambda v: v.as_subclass(Marked), "right"),
    "silent subclass": Kind(lambda v: v.as_subclass(Silent), "right"),
    "buffer": Kind(lambda v: torch.nn.Buffer(v.clone()), "right"),
    "inference": Kind(_in_inference_mode, "right"),
    "zeros without memory": Kind(lambda v: torch._efficientzerotensor(v.shape, dtype=v.dtype),
                                 "right", zero=True),
    "negative view": Kind(lambda v: torch._neg_view(-v), "right"),
    "dlpack": Kind(lambda v: torch.from_dlpack(v.clone()), "right"),
    "read-only": Kind(_read_only, "right"),
    "expanded": Kind(lambda v: v.flatten()[:1].mul(0).view((1,) * v.dim()).expand(v.shape),
                     "right", zero=True),
    "fake": Kind(lambda v: FakeTensorMode(allow_non_fake_inputs=True).from_tensor(v), "fake"),
    # Functionalisation takes the plain tensors beside it as they are.
    "functional": Kind(torch._to_functional_tensor, "either"),
    "leaked from vmap": Kind(_leaked_from_vmap, "refused"),
    "leaked from grad": Kind(_leaked(torch.func.grad), "either"),
    "meta": Kind(lambda v: v.to("meta"), "refused"),
    "freed": Kind(_cut(0), "refused", "crash"),
    "cut": Kind(_cut(3), "refused", "crash"),
    "cut behind an offset": Kind(_cut(4, offset=1), "refused", "crash"),
    "coo": Kind(Tensor.to_sparse, "refused"),
    # Where it has been asked, it knows of no op but some of torch's.
    "masked": Kind(lambda v: MaskedTensor(v, torch.ones_like(v, dtype=torch.bool)), "refused",
                   "any", lines=False),
    "uninitialised": Kind(lambda v: torch.nn.UninitializedParameter(), "refused"),
    "bool": Kind(_to(torch.bool), "refused"),
    "uint8": Kind(_to(torch.uint8), "refused"),
    "uint64": Kind(_to(torch.uint64), "refused"),
    "int64": Kind(_to(torch.int64), "refused"),
    "float8": Kind(_to(torch.float8_e4m3fn), "refused"),
    "complex": Kind(_to(torch.complex64), "refused"),
    "conjugate": Kind(lambda v: v.to(torch.complex64).conj(), "refused"),
    "quantised": Kind(_quantised, "refused"),
    "nested": Kind(_nested(torch.strided), "refused"),
    "jagged": Kind(_nested(torch.jagged), "refused", lines=False),
}  # fmt: skip
# Those of at least one dimension, and of two.
LONG = {"mkldnn": Kind(lambda v: v.to_mkldnn(), "refused")}
FLAT = {"csr": Kind(Tensor.to_sparse_csr, "refused")}


def kinds(values: Tensor, labels: Sequence[str] | None) -> dict[str, Kind]:
    """The kinds that a tensor can have, of those with these labels."""
    if labels is not None:
        return {label: REAL[label] for label in labels}
    found = REAL
    if values.dim() > 0:
        found = found | LONG
    return found | FLAT if values.dim() == 2 else found


# What a hook may give back in place of a saved tensor, beside the kinds above.
UNPACKED = {
    "float64": Kind(Tensor.double, "either"),
    "bfloat16": Kind(Tensor.bfloat16, "any"),
    "other strides": Kind(lambda v: v[..., None].expand(*v.shape, 2).clone()[..., 0], "either"),
    "one element": Kind(lambda v: v.flatten()[:1], "any"),
    "no element": Kind(lambda v: v.flatten()[:0], "any"),
    "a row less": Kind(lambda v: v[1:] if v.dim() else v, "any"),
    "a row more": Kind(lambda v: torch.cat([v, v]) if v.dim() else v, "any"),
    "a column less": Kind(lambda v: v[..., 1:] if v.dim() else v, "any"),
    "a dimension more": Kind(lambda v: v[None], "any"),
    "two dimensions more": Kind(lambda v: v[None, None].expand(2, 1, *v.shape), "any"),
    "flat": Kind(Tensor.flatten, "any"),
    "no dimension": Kind(lambda v: v.sum(), "any"),
}
