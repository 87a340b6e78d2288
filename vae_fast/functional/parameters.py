"""What a network returns as one tensor, cut into a mean and a log-variance."""

from __future__ import annotations

from torch import Tensor

from vae_fast import _checks
from vae_fast.autograd.split_parameters import split_parameters as _split_parameters


def split_parameters(parameters: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of a network that returns both in one tensor, the mean first.

    They are the views ``parameters.chunk(2, dim)``. What differs is the backward pass: the ops here
    write the gradients of two such halves side by side, and they are the gradient of ``parameters``
    without being copied. That holds for a contiguous ``parameters`` of at least 4 MiB whose halves
    go into an op of a compiled backend with the event beginning at ``dim``, one op alone. In all
    other cases the gradients are joined, as ``chunk`` does it.

    Args:
        parameters: ``[*batch, *event]``, the mean's elements before the log-variance's along
            ``dim``; float64, float32, float16 or bfloat16.
        dim: the dimension that holds both; negative from the right.

    Returns:
        mean and logvar, views of half the size along ``dim``.

    Raises:
        TypeError: ``parameters`` is not a floating-point tensor, or ``dim`` not an int.
        ValueError: ``dim`` is out of range, or its size odd.
    """
    return _split_parameters(parameters, _checks.halved("parameters", parameters, dim))
