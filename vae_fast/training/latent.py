"""The picture of a latent space of two dimensions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from vae_fast import FusedVAE
from vae_fast.training.figures import like_parameters, png, to_numpy
from vae_fast.training.grids import as_images, mosaic

SIDE = 16  # decoded images along each axis
CATEGORIES = 20  # more different labels than this get a colour scale instead of a legend
CHUNK = 1024
LONGEST = 40  # characters of a label


def _text(label: object) -> str:
    """A label as fonts can show it, and not as long as the picture is wide."""
    text = "".join(each if each.isprintable() else "?" for each in str(label)[:LONGEST])
    # Matplotlib leaves what begins with an underscore out of legends.
    return f" {text}" if text.startswith("_") else text


def _scatter(figure: Figure, axes: Any, means: np.ndarray, labels: np.ndarray | None) -> None:
    style: dict[str, Any] = {"s": 14, "alpha": 0.8, "linewidths": 0}
    if labels is None:
        axes.scatter(*means.T, color="#4c78a8", **style)
        return
    names = np.unique(labels)
    if len(names) > CATEGORIES and labels.dtype.kind in "buif":
        points = axes.scatter(*means.T, c=labels.astype(float), cmap="viridis", **style)
        figure.colorbar(points, ax=axes, label="label")
        return
    colours = colormaps["tab10" if len(names) <= 10 else "tab20"]
    for index, name in enumerate(names):
        axes.scatter(
            *means[labels == name].T, color=colours(index % 20), label=_text(name), **style
        )
    if len(names) <= CATEGORIES:
        legend = axes.legend(
            title="label", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)  # a label with dollar signs is no formula


@torch.no_grad()
def latent_map(
    model: FusedVAE, held_out: Tensor, labels: np.ndarray | None, limits: tuple[float, float]
) -> bytes:
    """Where q(z|x) puts the held-out rows, and what p(x|z) makes of each place.

    Args:
        model: with two latents.
        held_out: ``[N, *event]``.
        labels: ``[N]``, for the colours.
        limits: the values shown as black and white.
    """
    parts = [
        model.encode(like_parameters(model, held_out[start : start + CHUNK]))[0]
        for start in range(0, len(held_out), CHUNK)
    ]
    means = to_numpy(torch.cat(parts))
    # Both panels show the same square, around all but the outermost rows.
    reach = math.ceil(2 * max(2.5, float(np.quantile(np.abs(means), 0.998)))) / 2
    step = 2 * reach / SIDE
    places = -reach + step * (np.arange(SIDE) + 0.5)
    # From the top row down, as an image is stored.
    z = np.stack(np.meshgrid(places, places[::-1]), axis=-1).reshape(-1, 2)
    decoded = model.decode(like_parameters(model, torch.from_numpy(z)))[0]
    images = as_images(to_numpy(decoded))
    panels = 1 if images is None else 2
    figure = Figure(figsize=(6.6 * panels, 5.8), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _scatter(figure, axes[0], means, labels)
    axes[0].set_title("Held-out rows: mean of q(z|x)")
    axes[0].grid(alpha=0.3)
    if images is not None:
        low, high = limits
        axes[1].imshow(
            mosaic(images, SIDE, low, high),
            cmap="gray",
            vmin=low,
            vmax=high,
            interpolation="nearest",
            extent=(-reach, reach, -reach, reach),
        )
        axes[1].set_title("Decoded: mean of p(x|z)")
    for panel in axes:
        panel.set(
            xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="z₁", ylabel="z₂"
        )
    return png(figure)
