"""The default networks: multilayer perceptrons that give the parameters of a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class GaussianMLP(nn.Module):
    """Linear layers with ReLU between them, giving a mean and, where asked, a log-variance.

    Args:
        input_shape: event shape of the input, flattened: ``[N, *input_shape]``.
        hidden_dims: widths of the hidden layers, in order.
        output_shape: event shape of each output.
        outputs: 2 for a mean and a log-variance, 1 for a mean alone.

    Returns (forward):
        ``(mean, logvar)``, or the mean alone, each ``[N, *output_shape]``.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden_dims: Sequence[int],
        output_shape: Sequence[int],
        outputs: int,
    ) -> None:
        super().__init__()
        widths = [math.prod(input_shape), *hidden_dims]
        layers: list[nn.Module] = [nn.Flatten()]
        for width, next_width in pairwise(widths):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        # A layer an output: halves of one wide layer's output would not be contiguous.
        self.heads = nn.ModuleList(
            nn.Linear(widths[-1], math.prod(output_shape)) for _ in range(outputs)
        )
        self.output_shape = tuple(output_shape)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        hidden = self.hidden(x)
        outputs = tuple(head(hidden) for head in self.heads)
        if len(self.output_shape) > 1:  # else these would be views, of which FSDP warns
            outputs = tuple(output.unflatten(1, self.output_shape) for output in outputs)
        return outputs if len(outputs) > 1 else outputs[0]
