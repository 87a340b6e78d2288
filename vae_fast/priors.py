"""Priors of z."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized

import torch
from torch import Tensor, nn

from vae_fast._checks import number
from vae_fast._shapes import event_shape


class GaussianPrior(nn.Module):
    """p(z) as a Gaussian with diagonal covariance, fixed or learned.

    A prior of ``FusedVAE`` is any module that is called without arguments and returns the mean and
    the log-variance, broadcastable to ``[*latent]``.

    Args:
        latent_shape: event shape of z, an int or a tuple.
        mean, logvar: where they are, or start: numbers, or tensors that broadcast to the shape.
        learned: whether they are parameters or buffers.

    Raises:
        TypeError: latent_shape has other than whole numbers, or mean or logvar is a bool.
        ValueError: a size is below 1, a number is not finite, or mean or logvar does not broadcast
            to the latent shape.
    """

    mean: Tensor  # [*latent]
    logvar: Tensor  # [*latent]

    def __init__(
        self,
        latent_shape: int | Sequence[int],
        mean: float | Tensor = 0.0,
        logvar: float | Tensor = 0.0,
        *,
        learned: bool,
    ) -> None:
        super().__init__()
        shape = event_shape("latent_shape", latent_shape)
        for name, value in (("mean", mean), ("logvar", logvar)):
            if not isinstance(value, Sized):  # neither tensor nor array
                value = number(name, value, -math.inf)
            start = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach()
            try:
                full = start.broadcast_to(shape).clone()
            except RuntimeError as error:
                raise ValueError(
                    f"{name} must broadcast to the latent shape {shape}; got {tuple(start.shape)}"
                ) from error
            if learned:
                setattr(self, name, nn.Parameter(full))
            else:
                self.register_buffer(name, full)

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.mean, self.logvar

    def extra_repr(self) -> str:
        learned = next(self.parameters(), None) is not None
        return f"latent_shape={tuple(self.mean.shape)}, learned={learned}"
