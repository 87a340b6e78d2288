"""The inputs that ops are tested on: what a case says, and the tensors it stands for."""

from __future__ import annotations

import dataclasses
import math
import zlib

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
HALVES = (torch.float16, torch.bfloat16)
ARGUMENTS = {
    "sample_kl": ("mean", "logvar", "prior_mean", "prior_logvar"),
    "gaussian_kl": ("mean", "logvar", "prior_mean", "prior_logvar"),
    "gaussian_log_likelihood": ("x", "mean", "logvar"),
    "negative_elbo": ("x", "mean", "logvar", "kl"),
    "squared_error": ("x", "mean"),
    "sample_log_weights": ("mean", "logvar", "prior_mean", "prior_logvar"),
    "importance_weighted_elbo": ("log_weights",),
    "score_function": ("signal", "mean", "logvar"),
}
OUTPUTS = {
    "sample_kl": ("z", "kl", "kl_dims"),  # the last where return_dims asks for it
    "gaussian_kl": ("kl",),
    "gaussian_log_likelihood": ("log_likelihood",),
    "negative_elbo": ("loss",),
    "squared_error": ("squared_error",),
    "sample_log_weights": ("z", "log_ratio"),
    "importance_weighted_elbo": ("bound", "weights"),
    "score_function": ("value",),
}
# Outputs in the dtype of an argument; the others have that of the arithmetic.
OUTPUTS_LIKE = {"z": "mean", "value": "signal"}
DECODER_OPS = ("gaussian_log_likelihood", "negative_elbo", "squared_error")
PRIORS = {"prior_mean": "full", "prior_logvar": "full"}
CONSTANTS = ("weights",)  # outputs without a gradient
# Ops whose gradient is by design not the derivative of their value.
SURROGATES = ("score_function",)
LAYOUTS = ("contiguous", "transposed", "sliced", "offset", "expanded", "channels_last", "negated")
# How an argument's shape relates to mean's: see `argument_shape`.
BROADCASTS = ("full", "rows", "event", "scalar", "row", "channel")


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of one op, with its upstream gradients."""

    op: str
    shape: tuple[int, ...]  # batch + event, without the sample axis; of log-weights the batch,
    # or where num_samples is None K and the batch
    event_dims: int | None = None  # None: all but the first
    dtype: torch.dtype = torch.float32  # of mean
    layout: str = "contiguous"
    logvar: str | None = "full"
    prior_mean: str | None = None
    prior_logvar: str | None = None
    num_samples: int | None = None  # of z, or the leading axis of a decoder's mean; or K
    noise: str = "seed"  # "seed" or "eps"
    seed: int = 0x9E3779B97F4A7C15
    row_offset: int = 0
    sample_offset: int = 0
    other_dtypes: tuple[tuple[str, torch.dtype], ...] = ()  # of arguments unlike mean
    bounds: tuple[float, float] = (-30.0, 20.0)
    spread: float = 1.0  # standard deviation of the log-variances, or of the log-weights
    level: float = 0.0  # what is added to log-weights
    impossible: bool = False  # log-weights of -inf: all of some rows, and some of the others
    free_bits: float | None = None
    balance: float | None = None
    return_dims: bool = False
    estimator: str = "reparameterization"
    baseline: str | None = None  # the kind of its shape: "full", "rows" or "scalar"
    beta: float = 1.0
    reduction: str = "mean"
    packed: bool = False  # mean and logvar are halves of one tensor: see `pack`
    differentiate: tuple[str, ...] | None = None  # None: every argument
    upstream: tuple[str, ...] | None = None  # outputs that a gradient arrives for; None: all
    scale: float = 1.0  # of the upstream gradients

    def __str__(self) -> str:
        parts = ["x".join(map(str, self.shape)) or "0d", str(self.dtype).removeprefix("torch.")]
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default and field.name not in ("shape", "dtype"):
                parts.append(f"{field.name}={value}".replace("torch.", "").replace("'", ""))
        return ",".join(parts)

    @property
    def resolved_event_dims(self) -> int:
        return len(self.shape) - 1 if self.event_dims is None else self.event_dims

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self.shape[: len(self.shape) - self.resolved_event_dims]

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(n for n in OUTPUTS[self.op] if n != "kl_dims" or self.return_dims)

    @property
    def mean_shape(self) -> tuple[int, ...]:
        return self.with_samples(self.shape) if self.op in DECODER_OPS else self.shape

    def with_samples(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.num_samples is None else (self.num_samples, *shape)

    def argument_dtype(self, name: str) -> torch.dtype:
        default = self.dtype
        if name in ("kl", "signal") and self.dtype in HALVES:
            default = torch.float32  # as the ops that make them return it
        return dict(self.other_dtypes).get(name, default)

    def argument_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of an argument, None where it is absent."""
        whole = {
            "mean": self.mean_shape,
            "x": self.shape,
            "kl": self.batch_shape,
            "signal": self.with_samples(self.batch_shape),
            "log_weights": self.with_samples(self.shape),
        }
        if name in whole:
            return whole[name]
        kind = getattr(self, name)
        event = self.shape[len(self.batch_shape) :]
        shapes = {
            None: None,
            "full": self.mean_shape,
            "rows": self.shape,  # shared by the samples of a decoder
            "event": event,
            "plane": event[1:],  # all of an event whose first size is 1
            "scalar": (),
            "row": self.batch_shape + (1,) * len(event),
            "channel": event[:1] + (1,) * len(event[1:]),
        }
        return shapes[kind]


def priors(op: str) -> dict[str, str]:
    """The kinds of a full prior's shapes, for an op that takes one."""
    return PRIORS if "prior_mean" in ARGUMENTS[op] else {}


def generator(*words: object) -> torch.Generator:
    """A generator of its own for each thing to draw, the same in every run."""
    return torch.Generator().manual_seed(zlib.crc32(repr(words).encode()))


def lay_out(values: Tensor, layout: str) -> Tensor:
    """A tensor of the same values ("expanded": of the first row's) with the named strides."""
    if layout == "transposed" and values.dim() > 1:
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "sliced" and values.dim() > 0:
        wide = values.new_full((*values.shape[:-1], 2 * values.shape[-1]), math.nan)
        wide[..., ::2] = values
        return wide[..., ::2]
    if layout == "offset":  # one element past an aligned address
        padded = values.new_full((values.numel() + 1,), math.nan)
        padded[1:] = values.flatten()
        return padded[1:].view(values.shape)
    if layout == "expanded" and values.dim() > 1:
        return values[:1].expand(values.shape)
    if layout == "channels_last" and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "negated":  # the memory holds the negated values, as in `z.conj().imag`
        return torch._neg_view(-values)
    return values.clone()


def values(case: Case, name: str, shape: tuple[int, ...]) -> Tensor:
    """Random float64 values of an argument, moderate but for what ``spread`` asks."""
    draw = torch.randn(shape, generator=generator(name, shape), dtype=torch.float64)
    if "logvar" in name:
        return case.spread * draw - 0.5
    if name == "kl":
        return 3 * draw.abs()
    if name == "log_weights":
        draw = case.level + case.spread * draw
        if case.impossible:
            draw[..., ::3] = -math.inf
            draw[::2, ..., 1::3] = -math.inf
    return draw


def tensors(case: Case, device: str = "cpu") -> dict[str, Tensor | None]:
    """The arguments of a case: leaves that require grad where the case differentiates them."""
    made: dict[str, Tensor | None] = {}
    for name in ARGUMENTS[case.op]:
        shape = case.argument_shape(name)
        if shape is None:
            made[name] = None
            continue
        tensor = values(case, name, shape).to(device, case.argument_dtype(name))
        wanted = case.differentiate is None or name in case.differentiate
        made[name] = lay_out(tensor, case.layout).detach().requires_grad_(wanted)
    return pack(made, case.mean_shape, case.resolved_event_dims) if case.packed else made


def pack(
    arguments: dict[str, Tensor | None], shape: tuple[int, ...], event_dims: int
) -> dict[str, Tensor | None]:
    """The arguments, mean and logvar as a tensor's halves along the event's first dimension."""
    pair = {name: arguments[name] for name in ("mean", "logvar")}
    dim = len(shape) - event_dims
    halves = torch.cat([tensor.detach() for tensor in pair.values()], dim).chunk(2, dim)
    return arguments | {
        name: half.detach().requires_grad_(tensor.requires_grad)
        for half, (name, tensor) in zip(halves, pair.items(), strict=True)
    }


def given_noise(case: Case, device: str = "cpu") -> Tensor:
    """The ``eps`` of a case that gives one, in the dtype of mean."""
    shape = case.with_samples(case.shape)
    draw = torch.randn(shape, generator=generator("eps", shape), dtype=torch.float64)
    return lay_out(draw.to(device, case.dtype), case.layout)


def given_baseline(case: Case, device: str = "cpu") -> Tensor | None:
    """The baseline of a case that has one: a constant in the signal's dtype."""
    rows = case.batch_shape
    kinds = {None: None, "full": case.with_samples(rows), "rows": rows, "scalar": ()}
    shape = kinds[case.baseline]
    if shape is None:
        return None
    draw = torch.randn(shape, generator=generator("baseline", shape), dtype=torch.float64)
    return lay_out(draw.to(device, case.argument_dtype("signal")), case.layout)


def upstream(case: Case, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Random, unequal gradients for the outputs that the case says they arrive for."""
    names = case.outputs if case.upstream is None else case.upstream
    gradients = {}
    for name in names:
        shape = outputs[name].shape
        draw = torch.randn(shape, generator=generator("grad", name, shape), dtype=torch.float64)
        gradient = (case.scale * draw).to(outputs[name].device, outputs[name].dtype)
        layout = "contiguous" if case.layout == "channels_last" else case.layout
        gradients[name] = lay_out(gradient, layout)
    return gradients
