"""What an argument must be, said once for every op, before any kernel starts."""

from __future__ import annotations

import math
import numbers
import operator
import sys

import torch
from torch import Tensor

from vae_fast._backends.reference import compute_dtype
from vae_fast._broadcast import reduction
from vae_fast._control import NO_CONTROL, KLControl
from vae_fast._seed import SEED_LIMIT
from vae_fast._storage import require_memory

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
REDUCTIONS = ("mean", "sum", "none")
_LARGEST = sys.float_info.max
ESTIMATORS = ("reparameterization", "stl", "dreg")


def dtype(name: str, value: torch.dtype) -> None:
    if value not in FLOATING:
        raise TypeError(f"{name} must be float64, float32, float16 or bfloat16; got {value}")


def tensor(name: str, value: object, device: torch.device | None = None) -> torch.Size:
    """A strided floating-point tensor, on ``device`` where that is given; its shape."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}")
    if value.dtype not in FLOATING:
        dtype(name, value.dtype)
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a strided tensor; got layout {value.layout}")
    if device is not None and value.device != device:
        raise ValueError(f"{name} must be on {device} like the others; got {value.device}")
    try:
        return value.shape
    except RuntimeError:
        if not value.is_nested:
            raise
    raise TypeError(f"{name} must be a tensor with one shape; got a nested one")


def integer(
    name: str, value: object, minimum: int | None = None, maximum: int | None = None
) -> int:
    """``value``, a whole number of any kind, as a Python int; neither a bool nor a tensor.

    A number that the compiler holds as a symbol stays one.
    """
    # Python's own first, since it takes no time.
    whole = value if type(value) is int else _index(name, value)
    if (minimum is not None and whole < minimum) or (maximum is not None and whole > maximum):
        low = "" if minimum is None else f"at least {minimum}"
        high = "" if maximum is None else f"at most {maximum}"
        raise ValueError(f"{name} must be {' and '.join(filter(None, (low, high)))}; got {whole}")
    return whole


def _index(name: str, value: object) -> int:
    if isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]
    if isinstance(value, Tensor) and torch._C._get_tracing_state() is not None:
        return int(value)  # torch.jit.trace makes tensors of sizes, and warns of this
    # What has an index is whole, NumPy's numbers among it. A tensor has one that waits for a GPU.
    if isinstance(value, (bool, Tensor)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int; got {type(value).__name__}")
    try:
        return operator.index(value)
    except TypeError:  # of NumPy's bool, and of an array that is not one number
        raise TypeError(f"{name} must be an int; got {type(value).__name__}") from None


def number(name: str, value: object, minimum: float, maximum: float = math.inf) -> float:
    """``value``, finite and from ``minimum`` to ``maximum``, as ``real`` gives it."""
    found = real(name, value)
    # An int may be finite and beyond every float.
    if not (minimum <= found <= maximum and -_LARGEST <= found <= _LARGEST):
        low = "" if minimum == -math.inf else f" and at least {minimum:g}"
        high = "" if maximum == math.inf else f" and at most {maximum:g}"
        raise ValueError(f"{name} must be finite{low}{high}; got {value}")
    return found


def real(name: str, value: object) -> float:
    """``value``, a real number of any kind, as a Python float or int; neither a bool nor a tensor.

    A number that the compiler holds as a symbol stays one.
    """
    if type(value) is float or type(value) is int:
        return value
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        return value  # type: ignore[return-value]
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")
    if isinstance(value, numbers.Integral):
        return operator.index(value)
    return float(value)


def event_dims(name: str, value: int | None, shape: torch.Size) -> int:
    """How many rightmost dimensions of ``shape`` a row has; all but the first by default."""
    if value is None and shape:  # in the shortest time
        return len(shape) - 1
    if len(shape) == 0:
        raise ValueError(f"{name} must have at least one dimension; got none")
    return integer("event_dims", value, 0, len(shape))


def row_offset(value: object, shape: torch.Size, event_dims: int) -> int:
    """The index of the first row, from which every element has an index of 64 bits.

    As an int64 of the same low bits, which a registered op can take.
    """
    if type(value) is int and value == 0:
        return 0
    offset = integer("row_offset", value, 0)
    if type(offset) is int and offset:  # one that a compiler holds as a symbol has 63 bits itself
        split = len(shape) - event_dims
        cols = math.prod(shape[split:])
        if (offset + math.prod(shape[:split])) * cols > 2**64:
            raise ValueError(
                "row_offset must leave each element an index below 2**64, (row_offset + rows) * "
                f"{cols} at most 2**64; got {offset}"
            )
        if offset >= 2**63:
            offset -= 2**64
    return offset


def halved(name: str, value: Tensor, dim: int) -> int:
    """``dim`` counted from the left, checked to be one of ``value`` that can be cut in two."""
    dims = len(tensor(name, value))
    if dims == 0:
        raise ValueError(f"{name} must have at least one dimension; got none")
    dim = integer("dim", dim, -dims, dims - 1)
    if value.shape[dim] % 2:
        raise ValueError(
            f"{name} must have an even size along dimension {dim}, for a mean and a log-variance; "
            f"got shape {tuple(value.shape)}"
        )
    return dim % dims


def broadcasts(name: str, value: Tensor, full: torch.Size) -> None:
    shape = value.shape
    fits = len(shape) <= len(full) and all(
        s == f or s == 1 for s, f in zip(reversed(shape), reversed(full), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{name} must have a shape that broadcasts to {tuple(full)}; got {tuple(shape)}"
        )


def broadcastable(
    name: str,
    value: Tensor,
    full: torch.Size,
    event_dims: int,
    device: torch.device,
    beside: tuple[object, ...],
) -> Tensor:
    """``value``, checked to be broadcastable to ``full``; ``beside`` are the call's other tensors.

    What the kernels cannot read in place (a broadcast over some of the batch or event dimensions
    only) comes back expanded: a view, whose gradient autograd sums.
    """
    shape = tensor(name, value, device)
    if shape == full:
        return value
    broadcasts(name, value, full)
    if reduction(shape, full, event_dims) is not None:
        return value
    require_memory(value)
    # In the type computed in already, so that autograd's sum is one of unrounded terms.
    tensors = (other for other in beside if isinstance(other, Tensor))
    return value.to(compute_dtype(value, *tensors)).expand(full)


def gaussian(
    mean: Tensor,
    logvar: Tensor,
    prior_mean: Tensor | None,
    prior_logvar: Tensor | None,
    dims: int | None,
) -> tuple[torch.Size, torch.device, int, Tensor, Tensor | None, Tensor | None]:
    """Checks a diagonal Gaussian and its prior.

    Returns the shape, device and event dimensions to use, and what ``broadcastable`` makes of the
    log-variance, the prior's mean and the prior's log-variance.
    """
    shape, device = tensor("mean", mean), mean.device
    dims = event_dims("mean", dims, shape)
    all_given = (mean, logvar, prior_mean, prior_logvar)
    if tensor("logvar", logvar, device) != shape:  # else one call less
        logvar = broadcastable("logvar", logvar, shape, dims, device, all_given)
    if prior_mean is not None:
        prior_mean = broadcastable("prior_mean", prior_mean, shape, dims, device, all_given)
    if prior_logvar is not None:
        prior_logvar = broadcastable("prior_logvar", prior_logvar, shape, dims, device, all_given)
    return shape, device, dims, logvar, prior_mean, prior_logvar


def bounds(logvar_min: float, logvar_max: float) -> tuple[float, float]:
    if type(logvar_min) is not float or type(logvar_max) is not float:
        logvar_min, logvar_max = real("logvar_min", logvar_min), real("logvar_max", logvar_max)
    if not logvar_min <= logvar_max:
        raise ValueError(
            f"logvar_min must be at most logvar_max; got {logvar_min} and {logvar_max}"
        )
    return logvar_min, logvar_max


def kl_control(free_bits: float | None, balance: float | None) -> KLControl:
    if free_bits is None and balance is None:
        return NO_CONTROL
    if free_bits is not None:
        free_bits = number("free_bits", free_bits, 0)
    if balance is not None:
        balance = number("balance", balance, 0, 1)
    return KLControl(
        -math.inf if free_bits is None else float(free_bits),
        1.0 if balance is None else 1.0 - balance,
        1.0 if balance is None else float(balance),
    )


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def beta(value: float | Tensor) -> float | Tensor:
    """A number, as ``real`` gives it, or a 0-dim tensor without gradient."""
    if not isinstance(value, Tensor):
        return real("beta", value)
    if value.is_complex():
        raise TypeError(f"beta must be a real number; got a tensor of {value.dtype}")
    if value.is_nested:
        raise ValueError("beta must be a number or a 0-dim tensor; got a nested tensor")
    if value.dim() != 0 or value.requires_grad:
        raise ValueError(
            "beta must be a number or a 0-dim tensor without gradient; got shape "
            f"{tuple(value.shape)}, requires_grad={value.requires_grad}"
        )
    return value


def seed(value: int | Tensor) -> int | Tensor:
    """A Python int of 64 bits, or a 0-dim int64 tensor."""
    if not isinstance(value, Tensor):
        return integer("seed", value, 0, SEED_LIMIT - 1)
    if value.is_nested:
        raise ValueError("seed must be an int or a 0-dim int64 tensor; got a nested tensor")
    if value.dtype is not torch.int64 or value.dim() != 0:
        raise ValueError(
            "seed must be an int or a 0-dim int64 tensor; got a tensor of "
            f"{value.dtype} and shape {tuple(value.shape)}"
        )
    return value


def noise_source(
    eps: Tensor | None,
    seed_value: int | Tensor | None,
    generator: torch.Generator | None,
    shape: torch.Size,
    num_samples: int | None,
    device: torch.device,
) -> int | Tensor | None:
    """At most one of eps, seed and generator, and that one fit for a mean of this shape.

    Returns the seed.
    """
    given = [
        name
        for name, value in (("eps", eps), ("seed", seed_value), ("generator", generator))
        if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"at most one of eps, seed and generator may be given; got {given}")
    if seed_value is not None:
        seed_value = seed(seed_value)
    if eps is not None:
        given_shape = tuple(tensor("eps", eps, device))
        z_shape = tuple(shape) if num_samples is None else (num_samples, *shape)
        if given_shape != z_shape:
            raise ValueError(f"eps must have the shape of z, {z_shape}; got {given_shape}")
        if eps.requires_grad:
            raise ValueError("eps must not require a gradient: it is noise; got requires_grad=True")
    if generator is not None:
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator; got {type(generator).__name__}")
        if generator.device.type != device.type:
            raise ValueError(f"generator must be on {device}; got {generator.device}")
    return seed_value
