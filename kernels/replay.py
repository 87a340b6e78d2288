"""A call like one before does what that did, without finding out again what there is to do.

The tiles, forms and arguments of a call follow from its tensors' shapes, strides, types and
alignment and from its options, not from where the tensors are or what the seed is. Finding them,
and Triton's own way to a launch, cost a small call more than its kernels. So a call is recorded:
the tensors it makes, and each launch with the place of every tensor among those given and made.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from vae_fast._storage import extent, is_plain, require_extent
from vae_fast.kernels.arguments import (
    BETA,
    SEED_WORDS,
    as_argument,
    readable,
    words_of,
)

# Recordings of an op. More than the shapes of a model; all are dropped where a loop has more.
LIMIT = 1024
# Parameters of ops that may hold tensors in a tuple.
TUPLES = ("needs", "gradients")

P = ParamSpec("P")
R = TypeVar("R")


class _Launch(NamedTuple):
    run: Callable[..., object]  # the compiled kernel on its grid
    arguments: list[Any]  # None where a tensor goes
    tensors: tuple[tuple[int, int], ...]  # a place among the arguments, and the tensor's number
    seed: int | None  # place of the first of its words, where they differ from call to call
    beta: tuple[int, torch.dtype] | None  # likewise, and the type it is wanted in


class _Steps(NamedTuple):
    """What a call does. Its tensors are numbered, those given before those made."""

    made: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    launches: tuple[_Launch, ...]
    result: Any  # the number of a tensor, None, or a tuple of such
    extents: tuple[int, ...]  # of the tensors given, in bytes


class _Recording:
    def __init__(self) -> None:
        self.made: list[Tensor] = []
        self.launched: list[tuple[Any, Any, int, tuple[Any, ...]]] = []


class _State(threading.local):
    recording: _Recording | None = None


class _Unlike(Exception):
    """The call did more than make tensors and launch kernels."""


_state = _State()
_off = False


@contextmanager
def disabled() -> Iterator[None]:
    """Nothing is recorded nor replayed, in any thread."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


_nothing = nullcontext()


def current(device: torch.device) -> Any:
    """Triton launches on the current device."""
    if device.type == "cpu":
        return _nothing
    module = torch.cuda if device.type == "cuda" else torch.get_device_module(device)
    return _nothing if module.current_device() == device.index else module.device(device)


def new(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    made = torch.empty(tuple(shape), dtype=dtype, device=device)
    if _state.recording is not None:
        _state.recording.made.append(made)
    return made


def note_launch(kernel: Any, compiled: Any, programs: int, arguments: tuple[Any, ...]) -> None:
    """``kernel`` ran, as ``compiled``: None in Triton's interpreter."""
    if _state.recording is not None:
        _state.recording.launched.append((kernel, compiled, programs, arguments))


def _number(tensor: Tensor, everything: Sequence[Tensor]) -> int:
    """Of the tensor that begins there. An expanded or a flattened one is read by its pointer."""
    place = tensor.data_ptr()
    found = [
        number
        for number, other in enumerate(everything)
        if other.data_ptr() == place and other.dtype is tensor.dtype
    ]
    if len(found) != 1:
        raise _Unlike
    return found[0]


def _numbers(result: Any, everything: Sequence[Tensor]) -> Any:
    if result is None:
        return None
    if isinstance(result, tuple):
        return tuple(_numbers(each, everything) for each in result)
    found = [number for number, tensor in enumerate(everything) if tensor is result]
    if len(found) != 1:
        raise _Unlike
    return found[0]


def _results(numbers: Any, everything: Sequence[Tensor]) -> Any:
    if numbers.__class__ is tuple:
        return tuple([_results(each, everything) for each in numbers])
    return None if numbers is None else everything[numbers]


def _place(kernel: Any, name: str, varies: bool) -> int | None:
    return kernel.arg_names.index(name) if varies and name in kernel.arg_names else None


def _steps(
    recording: _Recording, given: list[Tensor], seed: bool, beta: bool, result: Any
) -> _Steps:
    """What was done; ``seed`` and ``beta`` say whether these are numbers that may change."""
    everything = [*given, *recording.made]
    launches = []
    for kernel, compiled, programs, arguments in recording.launched:
        if compiled is None:
            raise _Unlike
        tensors = tuple(
            (place, _number(value, everything))
            for place, value in enumerate(arguments)
            if isinstance(value, Tensor)
        )
        others = [None if isinstance(value, Tensor) else value for value in arguments]
        at = _place(kernel, BETA, beta)
        # As an int go the bits of a float64.
        wide = at is not None and isinstance(arguments[at], int)
        launches.append(
            _Launch(
                compiled[(programs, 1, 1)],
                others,
                tensors,
                _place(kernel, SEED_WORDS[0], seed),
                None if at is None else (at, torch.float64 if wide else torch.float32),
            )
        )
    made = tuple((tuple(tensor.shape), tensor.dtype) for tensor in recording.made)
    extents = tuple(extent(tensor) for tensor in given)
    return _Steps(made, tuple(launches), _numbers(result, everything), extents)


def _run(
    steps: _Steps,
    tensors: list[Tensor],
    pointers: list[int],
    seed: Any,
    beta: Any,
    device: torch.device,
) -> Any:
    for tensor, pointer, length in zip(tensors, pointers, steps.extents, strict=True):
        require_extent(tensor, pointer, length)
    for shape, dtype in steps.made:
        made = torch.empty(shape, dtype=dtype, device=device)
        tensors.append(made)
        pointers.append(made.data_ptr())
    with current(device):
        for run, arguments, places, seed_at, beta_at in steps.launches:
            # A pointer as a number: of a tensor, Triton would ask the driver what it is.
            arguments = arguments.copy()
            for place, number in places:
                arguments[place] = pointers[number]
            if seed_at is not None:
                arguments[seed_at : seed_at + 2] = words_of(seed)
            if beta_at is not None:
                arguments[beta_at[0]] = as_argument(float(beta), beta_at[1])
            run(*arguments)
    return _results(steps.result, tensors)


def replayed(op: Callable[P, R]) -> Callable[P, R]:
    """Has the calls of ``op``, whose arguments come by position, recorded and replayed."""
    untyped: Callable[..., Any] = op
    names = list(inspect.signature(op).parameters)
    tuples = frozenset(names.index(name) for name in TUPLES if name in names)
    seed_at, beta_at = (names.index(n) if n in names else len(names) for n in ("seed", BETA))
    recorded: dict[Any, _Steps | None] = {}  # None: cannot be replayed

    def describe(
        arguments: Sequence[Any], tensors: list[Tensor], pointers: list[int], nested: bool = False
    ) -> tuple[Any, ...]:
        """All that decides what the call does; the lists get its tensors and where they begin."""
        key: list[Any] = []
        for place, value in enumerate(arguments):
            if isinstance(value, Tensor):
                if not is_plain(value):
                    readable(value)  # an error says why it is not
                pointer = value.data_ptr()
                tensors.append(value)
                pointers.append(pointer)
                key += (value.dtype, value.shape, value.stride(), pointer % 16, value.get_device(),
                        value.is_neg())  # fmt: skip
            elif nested:
                key.append(value)
            elif place in tuples:
                key += describe(value, tensors, pointers, True)
            elif value is not None and (place == seed_at or place == beta_at):
                key.append(True)
            else:
                key.append(value)
        return tuple(key)

    def record(arguments: Any, tensors: list[Tensor], key: Any, seed: Any, beta: Any) -> Any:
        if len({tensor.data_ptr() for tensor in tensors}) < len(tensors):
            return untyped(*arguments)  # which of them a kernel is given could not be told
        if len(recorded) >= LIMIT:
            recorded.clear()
        _state.recording = recording = _Recording()
        try:
            result = untyped(*arguments)
        finally:
            _state.recording = None
        numbers = isinstance(seed, int), isinstance(beta, float | int)
        try:
            # One on another device may be read, and its value be an argument.
            alike = all(tensor.device == tensors[0].device for tensor in tensors)
            steps = _steps(recording, tensors, *numbers, result) if alike else None
        except _Unlike:
            steps = None
        recorded[key] = steps
        return result

    @wraps(op)
    def call(*arguments: Any) -> Any:
        if _off or _state.recording is not None:  # or a part of another op's call
            return untyped(*readable(arguments))
        tensors: list[Tensor] = []
        pointers: list[int] = []
        key = describe(arguments, tensors, pointers)
        device = tensors[0].device if tensors else arguments[-1]  # of noise, which is given none
        if device.index is None and device.type != "cpu":  # whichever is current
            return untyped(*arguments)
        seed = arguments[seed_at] if seed_at < len(arguments) else None
        beta = arguments[beta_at] if beta_at < len(arguments) else None
        steps = recorded.get(key)
        if steps is None:
            whole = readable(arguments)
            if key in recorded or whole is not arguments:
                return untyped(*whole)
            return record(arguments, tensors, key, seed, beta)
        return _run(steps, tensors, pointers, seed, beta, device)

    return cast(Callable[P, R], call)
