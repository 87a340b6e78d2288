"""The pictures of a run, each as the bytes of a PNG file."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vae_fast import FusedVAE
from vae_fast.training.grids import as_images, mosaic, show_mosaic
from vae_fast.training.metrics import Row

FARTHEST = 1e30  # from 0, on an axis
TRAIN, HELD_OUT, YARDSTICK = "#4c78a8", "#e45756", "#555555"


def png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def to_numpy(values: Tensor) -> np.ndarray:
    """float64, on the CPU."""
    return values.detach().double().cpu().numpy()


def like_parameters(model: FusedVAE, rows: Tensor) -> Tensor:
    """``rows`` with the dtype of the model's parameters, where they are."""
    parameter = next(model.parameters())
    return rows.to(parameter.device, parameter.dtype)


def drawable(value: float) -> float:
    """``value``, or a gap where it is beyond what axes can show."""
    return value if abs(value) <= FARTHEST else math.nan


def curves(rows: Sequence[Row], ppca_log_likelihood: float | None) -> bytes:
    """ELBO, log-likelihood and KL by epoch, of the training and the held-out rows."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = (("elbo", "ELBO"), ("log_likelihood", "Log-likelihood"), ("kl", "KL divergence"))
    epochs = [row["epoch"] for row in rows]
    for axes, (term, title) in zip(figure.subplots(1, 3), panels, strict=True):
        for name, label, colour in ("train", "training", TRAIN), ("held_out", "held out", HELD_OUT):
            values = [drawable(row[f"{name}_{term}"]) for row in rows]
            axes.plot(epochs, values, color=colour, label=label, linewidth=1.5)
        shown = [row[f"{name}_{term}"] for row in rows for name in ("train", "held_out")]
        if shown:
            # An untrained decoder can be thousands of nats down: the view begins where the
            # first tenth of the epochs is over, at the least.
            settled = [each for each in shown[2 * (len(rows) // 10) :] if drawable(each) == each]
        if shown and settled:
            low, high = min(settled), max(settled)
            if term == "elbo" and ppca_log_likelihood is not None:
                low, high = min(low, ppca_log_likelihood), max(high, ppca_log_likelihood)
            room = 0.05 * (high - low) or 1.0
            axes.set_ylim(low - room, high + room)
        if term == "elbo" and ppca_log_likelihood is not None:
            axes.axhline(
                ppca_log_likelihood, color=YARDSTICK, linestyle="--", label="probabilistic PCA"
            )
        axes.set(title=title, xlabel="epoch", ylabel="nats a row")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return png(figure)


@torch.no_grad()
def reconstructions(
    model: FusedVAE, held_out: Tensor, limits: tuple[float, float], columns: int = 12
) -> bytes:
    """Held-out rows, their reconstructions, and the decoder's standard deviation where learned.

    Args:
        held_out: ``[N, *event]``.
        limits: the values shown as black and white.
        columns: how many rows to show.
    """
    # Spread over the rows, which may be sorted.
    chosen = torch.linspace(0, len(held_out) - 1, min(columns, len(held_out))).round().long()
    x = like_parameters(model, held_out[chosen])
    mean, logvar = model.decode(model.encode(x)[0])
    deviation = None
    if logvar is not None and logvar.dim():
        clamped = logvar.clamp(min=model.decoder_logvar_min).expand_as(mean)
        deviation = to_numpy(clamped.mul(0.5).exp())
    original, reconstruction = to_numpy(x), to_numpy(mean)
    images, decoded = as_images(original), as_images(reconstruction)
    if images is None or decoded is None:
        return _lines(original, reconstruction, deviation)
    bands = [("held out", images, limits, "gray"), ("reconstruction", decoded, limits, "gray")]
    if deviation is not None:
        # Of a pixel: the mean over its colours.
        pixels = deviation if deviation.ndim == 3 else deviation.mean(axis=1)
        bands.append(("standard\ndeviation", pixels, (0.0, float(pixels.max())), "magma"))
    height, width = images.shape[1:3]
    tall = min(max(11.0 * height / (len(images) * (width + 1)), 0.8), 4.0)
    figure = Figure(figsize=(12, (tall + 0.2) * len(bands) + 0.5), layout="constrained")
    figure.suptitle("Held-out rows and the mean of p(x|z) at the mean of q(z|x)")
    panels = figure.subplots(len(bands), 1, squeeze=False).ravel()
    for axes, (label, band, (low, high), colours) in zip(panels, bands, strict=True):
        shown = show_mosaic(axes, mosaic(band, len(band), low, high), low, high, colours)
        axes.set_ylabel(label)
        if band.ndim == 3:
            figure.colorbar(shown, cax=axes.inset_axes((1.01, 0.0, 0.01, 1.0)))
    return png(figure)


def _lines(original: np.ndarray, mean: np.ndarray, deviation: np.ndarray | None) -> bytes:
    figure = Figure(figsize=(12, 6), layout="constrained")
    figure.suptitle("Held-out rows and the mean of p(x|z) at the mean of q(z|x)")
    panels = figure.subplots(3, 4, sharex=True, sharey=True).ravel()
    for index, axes in enumerate(panels):
        if index >= len(original):
            axes.set_axis_off()
            continue
        x, m = original[index].ravel(), mean[index].ravel()
        places = np.arange(len(x))
        axes.plot(places, x, ".", color=HELD_OUT, label="held out", markersize=4)
        axes.plot(places, m, color=TRAIN, label="reconstruction", linewidth=1.2)
        if deviation is not None:
            s = deviation[index].ravel()
            axes.fill_between(
                places, m - s, m + s, color=TRAIN, alpha=0.25, linewidth=0, label="± 1 sd"
            )
        if index % 4 == 0:
            axes.set_ylabel("value")
        if index >= 8:
            axes.set_xlabel("feature")
    panels[0].legend(frameon=False, fontsize=8)
    return png(figure)


def samples(drawn: Tensor, limits: tuple[float, float]) -> bytes:
    """Samples ``[num, *event]`` as a grid of images, or as lines where they are no images.

    Args:
        drawn: means of p(x|z) for z from the prior.
        limits: the values shown as black and white.
    """
    values = to_numpy(drawn)
    images = as_images(values)
    title = "Samples: mean of p(x|z), z from the prior"
    if images is None:
        figure = Figure(figsize=(10, 5), layout="constrained")
        axes = figure.subplots()
        axes.plot(values.reshape(len(values), -1).T, color=TRAIN, alpha=0.4, linewidth=0.8)
        axes.set(title=title, xlabel="feature", ylabel="value")
        axes.grid(alpha=0.3)
        return png(figure)
    columns = math.ceil(math.sqrt(len(values)))
    sheet = mosaic(images, columns, *limits)
    tall = 6.5 * min(sheet.shape[0] / sheet.shape[1], 4.0)
    figure = Figure(figsize=(6.5, tall + 0.5), layout="constrained")
    axes = figure.subplots()
    show_mosaic(axes, sheet, *limits, "gray")
    axes.set_title(title)
    return png(figure)
