"""Every shape that broadcasts, of every argument: the calls that ``test_broadcasts.py`` makes.

A frame is a full shape cut into batch and event, with sizes of 1, 2 and 3, so that the products of
different dimensions coincide. In it an argument has each shape that broadcasts to its own: leading
dimensions left out, and any others of size 1.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

Shape = tuple[int, ...]
SIZES = (1, 2, 3)
NO_OPTIONS: MappingProxyType[str, Any] = MappingProxyType({})


class Op(NamedTuple):
    """What is enumerated of an op."""

    broadcast: tuple[str, ...]  # arguments that it broadcasts itself
    expanded: tuple[str, ...]  # those that have to have their full shape, which a view gives them
    learned: tuple[str, ...]  # those that have a gradient
    outputs: tuple[str, ...]
    variants: tuple[dict[str, Any], ...] = ({},)  # options; the first is enumerated furthest


PRIORS = ("logvar", "prior_mean", "prior_logvar")
OPS = MappingProxyType(
    {
        "sample_kl": Op(
            PRIORS, ("mean", "eps"), ("mean", *PRIORS), ("z", "kl", "kl_dims"),
            ({"num_samples": 2, "return_dims": True}, {"num_samples": None}),
        ),
        "gaussian_kl": Op(PRIORS, ("mean",), ("mean", *PRIORS), ("kl",)),
        "sample_log_weights": Op(
            PRIORS, ("mean", "eps"), ("mean", *PRIORS), ("z", "log_ratio"),
            ({"num_samples": 2, "estimator": "dreg"}, {"num_samples": 2, "estimator": "stl"},
             {"num_samples": None, "estimator": "reparameterization"}),
        ),
        "score_function": Op(
            ("logvar", "baseline"), ("signal", "mean", "eps"), ("signal", "mean", "logvar"),
            ("value",), ({"num_samples": 2}, {"num_samples": None}),
        ),
        "gaussian_log_likelihood": Op(
            ("logvar",), ("x", "mean"), ("x", "mean", "logvar"), ("log_likelihood",)
        ),
        "squared_error": Op((), ("x", "mean"), ("x", "mean"), ("squared_error",)),
        "negative_elbo": Op(
            ("logvar",), ("x", "mean", "kl"), ("x", "mean", "logvar", "kl"), ("loss",),
            ({"reduction": "mean"}, {"reduction": "none"}, {"reduction": "sum"}),
        ),
        "importance_weighted_elbo": Op(
            (), ("log_weights",), ("log_weights",), ("bound", "weights")
        ),
    }
)  # fmt: skip
DECODER_OPS = ("gaussian_log_likelihood", "squared_error", "negative_elbo")


@dataclasses.dataclass(frozen=True)
class Frame:
    """A full shape of mean, or of log-weights, and the dimensions of it that are the event's."""

    shape: Shape
    event_dims: int
    shares_x: bool = False  # the first dimension is that of the samples, which x lacks

    @property
    def batch(self) -> Shape:
        return self.shape[: len(self.shape) - self.event_dims]

    @property
    def event(self) -> Shape:
        return self.shape[len(self.shape) - self.event_dims :]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of an op, differentiated once."""

    op: str
    frame: Frame
    shapes: tuple[tuple[str, Shape], ...] = ()  # of arguments that are not of their full shape
    variant: int = 0
    needs: tuple[str, ...] | None = None  # the gradients; None: all that there are
    dtype: str = "float64"

    @property
    def options(self) -> dict[str, Any]:
        return OPS[self.op].variants[self.variant]

    def full_shapes(self) -> dict[str, Shape]:
        return full_shapes(self.op, self.frame, self.variant)


def full_shapes(op: str, frame: Frame, variant: int = 0) -> dict[str, Shape]:
    """The full shape of each argument, and of each output's upstream gradient."""
    options = OPS[op].variants[variant]
    samples = options.get("num_samples")
    lead = () if samples is None else (samples,)
    x = frame.shape[1:] if frame.shares_x else frame.shape
    rows = x[: len(x) - frame.event_dims]
    if op == "importance_weighted_elbo":
        return {"log_weights": frame.shape, "grad bound": frame.shape[1:]}
    shapes = dict.fromkeys(("mean", "logvar"), frame.shape)
    if op in DECODER_OPS:
        shapes["x"] = x
        if op == "negative_elbo":
            shapes |= {"kl": rows, "grad loss": rows if options["reduction"] == "none" else ()}
        else:
            shapes[f"grad {OPS[op].outputs[0]}"] = frame.batch
        if op == "squared_error":
            del shapes["logvar"]
        return shapes
    if op == "score_function":
        shapes |= dict.fromkeys(("signal", "baseline", "grad value"), lead + frame.batch)
        return shapes | {"eps": lead + frame.shape}
    shapes |= dict.fromkeys(("prior_mean", "prior_logvar"), frame.shape)
    if op == "gaussian_kl":
        return shapes | {"grad kl": frame.batch}
    shapes |= dict.fromkeys(("eps", "grad z"), lead + frame.shape)
    if op == "sample_log_weights":
        return shapes | {"grad log_ratio": lead + frame.batch}
    dims = {"grad kl_dims": frame.event} if options.get("return_dims") else {}
    return shapes | {"grad kl": frame.batch} | dims


def frames(op: str, dims: int, sizes: tuple[int, ...] = SIZES) -> Iterator[Frame]:
    """Each full shape of so many dimensions, and each way to cut it."""
    for shape in itertools.product(sizes, repeat=dims):
        if op == "importance_weighted_elbo":
            if shape[0] > 0:  # there is no bound of no samples
                yield Frame(shape, 0)
            continue
        for event_dims in range(dims + 1):
            yield Frame(shape, event_dims)
            if op in DECODER_OPS and event_dims < dims and dims > 1 and shape[0] > 0:
                yield Frame(shape, event_dims, shares_x=True)


def broadcastable(full: Shape) -> Iterator[Shape]:
    """Each shape that broadcasts to ``full``, itself among them."""
    for lead in range(len(full) + 1):
        choices = [(1,) if size == 1 else (size, 1) for size in full[lead:]]
        yield from itertools.product(*choices)


def subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)


# Dimensions up to which it is enumerated: for an op's first variant, and for the others.
SUBSETS_TO = (3, 2)  # each subset of gradients where the op broadcasts an argument itself
SHAPES_TO = (4, 3)  # the shapes that it broadcasts itself
VIEWS_TO = (3, 1)  # those of other arguments and upstream gradients, which are expanded views


def one_by_one(op: str, dims: int, sizes: tuple[int, ...] = SIZES) -> Iterator[list[Call]]:
    """Each argument in each shape that broadcasts, the others full. Calls that differ in nothing
    but the gradients asked for come together: all of them; each subset; or of views the argument's
    alone."""
    learned = OPS[op].learned
    for variant, frame in itertools.product(range(len(OPS[op].variants)), frames(op, dims, sizes)):
        later = variant > 0
        if dims > SHAPES_TO[later]:
            continue
        each = list(subsets(learned)) if dims <= SUBSETS_TO[later] else None
        yield differentiated(Call(op, frame, (), variant), each or [])
        for name, whole in full_shapes(op, frame, variant).items():
            itself = name in OPS[op].broadcast
            if not itself and dims > VIEWS_TO[later]:
                continue
            alone = [(name,)] if name in learned and not itself else []
            for shape in broadcastable(whole):
                if shape != whole:
                    call = Call(op, frame, ((name, shape),), variant)
                    yield differentiated(call, each if itself and each else alone)


def differentiated(call: Call, needs: list[tuple[str, ...]]) -> list[Call]:
    """The call with all gradients, and with each of the others asked for."""
    others = [names for names in needs if names != OPS[call.op].learned]
    return [call, *(dataclasses.replace(call, needs=names) for names in others)]


def together(op: str, dims: int, count: int) -> Iterator[list[Call]]:
    """``count`` arguments that the op broadcasts, in each combination of shapes short of full."""
    for frame in frames(op, dims):
        full = full_shapes(op, frame)
        for names in itertools.combinations(OPS[op].broadcast, count):
            choices = ([s for s in broadcastable(full[n]) if s != full[n]] for n in names)
            for shapes in itertools.product(*choices):
                named = tuple(zip(names, shapes, strict=True))
                yield [Call(op, frame, named, dtype="float32")]


def kind(frame: Frame, shape: Shape, full: Shape) -> tuple[Any, ...]:
    """How a shape lies in the frame, whatever the sizes above 1: what it covers of the batch and of
    the event, with how many dimensions it has beside those of the event, whether the first sizes of
    the event are 1; and which products of sizes its number of elements equals."""
    padded = (1,) * (len(full) - len(shape)) + shape
    split = len(full) - frame.event_dims
    covered = []
    for side in (slice(split), slice(split, None)):
        sizes = [(f, p) for f, p in zip(full[side], padded[side], strict=True) if f > 1]
        covered.append((bool(sizes), {f == p for f, p in sizes} if sizes else None))
    covered = tuple((there, frozenset(states or ())) for there, states in covered)
    reach = (len(shape) > frame.event_dims) - (len(shape) < frame.event_dims)
    count = math.prod(shape)
    equal = tuple(count == n for n in (1, math.prod(frame.batch), math.prod(frame.event)))
    return covered, reach, frame.event[:1] == (1,), equal, frame.shares_x


def one_of_each_kind(op: str) -> Iterator[list[Call]]:
    """Of ``one_by_one`` the smallest call of each kind, with all gradients and with the argument's
    alone: for backends whose calls take milliseconds. The first variant has views too."""
    found: dict[Any, Call] = {}
    for dims in range(1, 5):
        for call, *_ in one_by_one(op, dims):
            name, shape = call.shapes[0] if call.shapes else ("", call.frame.shape)
            if call.variant > 0 and name and name not in OPS[op].broadcast:
                continue
            frame, full = call.frame, call.full_shapes().get(name, call.frame.shape)
            if len(full) < len(frame.shape) or name in ("baseline", "signal", "grad value"):
                frame = Frame(full, 0)  # a value a row
            key = (call.variant, name, kind(frame, shape, full))
            if key not in found or math.prod(call.frame.shape) < math.prod(found[key].frame.shape):
                found[key] = call
    for call in found.values():
        names = [name for name, _ in call.shapes if name in OPS[op].learned]
        yield differentiated(call, [tuple(names)] if names else [])
