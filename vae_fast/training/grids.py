"""Rows of data as pictures: which rows are images, and many of them in one."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_images(rows: np.ndarray) -> np.ndarray | None:
    """``[N, H, W]`` or ``[N, H, W, 3]`` for rows that are grey or colour images, else None."""
    if rows.ndim == 3:
        return rows
    if rows.ndim == 4 and rows.shape[1] == 1:
        return rows[:, 0]
    if rows.ndim == 4 and rows.shape[1] == 3:
        return rows.transpose(0, 2, 3, 1)
    return None


def mosaic(images: np.ndarray, columns: int, low: float, high: float) -> np.ndarray:
    """Images side by side with a line between, ``[rows·(H+1)-1, columns·(W+1)-1]`` (and 3).

    Colours come out in [0, 1]; grey values stay what they are, and what is no image is NaN.
    """
    count, height, width = images.shape[:3]
    colour = images.ndim == 4
    rows = -(-count // columns)
    shape = (rows * (height + 1) - 1, columns * (width + 1) - 1, *images.shape[3:])
    sheet = np.full(shape, 1.0 if colour else np.nan)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        scaled = np.clip((image - low) / (high - low), 0, 1) if colour else image
        sheet[top : top + height, left : left + width] = scaled
    return sheet


def show_mosaic(axes: Any, sheet: np.ndarray, low: float, high: float, colours: str) -> Any:
    """Draw a mosaic without ticks; the drawn image, for a colour bar."""
    shown = axes.imshow(sheet, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    axes.set_facecolor("white")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return shown
