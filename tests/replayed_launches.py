"""What the Triton backend launches where it records a call, and where it replays one.

A script, since here Triton's interpreter may have replaced its compiler: for each variant of each
op a line of JSON. Kernels are compiled for a GPU that is not there and given to a driver that
launches nothing.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.triton_calls import Driver, Launcher, calls_of
from bench.triton_variants import CALLS, Variant

VARIANTS = (
    *(Variant(op, shape) for op in CALLS for shape in ((128, 20), (40, 7))),
    *(Variant(op, (128, 20), torch.float64) for op in ("negative_elbo", "sample_kl")),
    Variant("sample_kl", (40, 7), logvar="event", samples=3),
    Variant("negative_elbo", (40, 7), samples=3),
    Variant("sample_kl", (40, 8), given=True),
    Variant("gaussian_kl", (40, 8), controlled=True),
    # A shape in two layouts.
    *(
        Variant(op, (64, 20), packed=packed)
        for op in ("sample_kl", "negative_elbo")
        for packed in (False, True)
    ),
)
launched: list[tuple[str, tuple[int, ...], tuple[Any, ...]]] = []


class Noting(Launcher):
    """Notes what it is given."""

    def __init__(self, source: Any, _metadata: Any) -> None:
        self.name = source.fn.__name__
        self.types = [str(source.signature.get(name, "constexpr")) for name in source.fn.arg_names]

    def __call__(self, *given: Any) -> None:
        arguments = given[9:]
        launched.append((self.name, given[:3], tuple(zip(self.types, arguments, strict=True))))


def elsewhere(value: Any) -> Any:
    """Other tensors of the same layouts, and other numbers where a call may have such."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(elsewhere(each) for each in value)
    if not isinstance(value, Tensor):
        return value
    storage = value.untyped_storage().clone()
    return torch.empty(0, dtype=value.dtype).set_(
        storage, value.storage_offset(), value.shape, value.stride()
    )


def flat(value: Any) -> list[Any]:
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return [each for inner in value for each in flat(inner)]
    return [value]


def run(op: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The launches of a call and its results, each tensor by what it is and not where."""
    launched.clear()
    result = op(*arguments)
    known = [*enumerate(flat(arguments)), *((f"result {n}", v) for n, v in enumerate(flat(result)))]

    def name(kind: str, value: Any) -> Any:
        if not kind.startswith("*"):
            return [kind, repr(value)]
        place = value.data_ptr() if isinstance(value, Tensor) else value
        names = [str(n) for n, t in known if isinstance(t, Tensor) and t.data_ptr() == place]
        return [kind, names or "made"]

    launches = [[kernel, grid, [name(*each) for each in given]] for kernel, grid, given in launched]
    results = [
        v if v is None else [name("*", v), list(v.shape), list(v.stride()), str(v.dtype)]
        for v in flat(result)
    ]
    return [launches, results]


def with_numbers(op: Callable[..., Any], arguments: tuple[Any, ...], seed: int, beta: float) -> Any:
    names = list(inspect.signature(op).parameters)
    values = {"seed": seed, "beta": beta}
    return tuple(
        values[name] if name in values and value is not None else value
        for name, value in zip(names, arguments, strict=False)
    )


def main() -> None:
    from triton.runtime.jit import JITFunction

    Driver("sm_90", Noting).activate()
    calls = calls_of(VARIANTS)
    from vae_fast.kernels import replay

    through_triton = 0
    jit_run = JITFunction.run

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal through_triton
        through_triton += 1
        return jit_run(self, *arguments, **options)

    JITFunction.run = counted
    for name, op, arguments in calls:
        numbers = with_numbers(op, arguments, 7, 0.5)
        others = with_numbers(op, arguments, 2**63 + 2**31 + 5, 0.25)
        for first, second in ((arguments, arguments), (numbers, others)):
            run(op, first)  # of which some have one tensor in two places
            run(op, elsewhere(first))
            for again in (elsewhere(second), second):
                through_triton = 0
                replayed = run(op, again)
                count = through_triton
                with replay.disabled():
                    plain = run(op, again)
                line = {"op": name, "launches": len(plain[0]), "through Triton": count,
                        "alike": replayed == plain}  # fmt: skip
                if replayed != plain:
                    line |= {"replayed": replayed, "plain": plain}
                print(json.dumps(line))


if __name__ == "__main__":
    sys.exit(main())
