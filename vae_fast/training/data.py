"""Data sets: where rows come from, and which of them are held out."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae_fast.training.errors import UserError
from vae_fast.training.readers import read_array, read_images
from vae_fast.training.reading import is_number, is_whole, shown
from vae_fast.training.seeds import SPLIT, derive, permutation

DIGITS = "digits"

# Of a description: what no machine holds.
MOST_ROWS = 2**40
MOST_VALUES = 2**31  # of a row
MOST_SIZE = 3.5e38  # of a value: that of float32


@dataclass(frozen=True)
class Description:
    """What a run's folder keeps of its data: enough to know them again, and to show samples."""

    rows: int
    event_shape: tuple[int, ...]
    sha256: str  # of the rows as float32
    limits: tuple[float, float]  # of the values to show

    @classmethod
    def from_json(cls, values: object) -> Description:
        """The description that ``dataclasses.asdict`` gave; UserError where it cannot be one."""
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or sorted(values) != sorted(names):
            raise UserError(
                f"the data must be described by {', '.join(names)}; got {shown(values)}"
            )
        rows, shape, digest, limits = (values[name] for name in names)
        if not is_whole(rows, 3, MOST_ROWS):
            raise UserError(f"rows must be a whole number from 3 to {MOST_ROWS}; got {shown(rows)}")
        if (
            not isinstance(shape, (list, tuple))
            or not 1 <= len(shape) <= 3
            or not all(is_whole(size, 1, MOST_VALUES) for size in shape)
            or math.prod(shape) > MOST_VALUES
        ):
            raise UserError(
                f"event_shape must be 1 to 3 whole numbers with a product of 1 to {MOST_VALUES}; "
                f"got {shown(shape)}"
            )
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise UserError(f"sha256 must be 64 hexadecimal digits; got {shown(digest)}")
        if (
            not isinstance(limits, (list, tuple))
            or len(limits) != 2
            or not all(is_number(limit) and abs(limit) <= MOST_SIZE for limit in limits)
            or limits[0] > limits[1]
        ):
            raise UserError(f"limits must be two numbers of float32, in order; got {shown(limits)}")
        return cls(rows, tuple(shape), digest, (float(limits[0]), float(limits[1])))


@dataclass(frozen=True)
class Data:
    """Rows and what is known of them."""

    name: str
    rows: Tensor  # [N, *event], float32, finite
    labels: np.ndarray | None  # [N], numbers or text

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.rows.shape[1:])

    def describe(self) -> Description:
        low, high = float(self.rows.min()), float(self.rows.max())
        limits = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)
        digest = hashlib.sha256(self.rows.numpy().tobytes()).hexdigest()
        return Description(len(self.rows), self.event_shape, digest, limits)


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows held out."""

    train: Tensor  # [N_train, *event]
    held_out: Tensor  # [N_held_out, *event]
    held_out_labels: np.ndarray | None


def resolve(name: str) -> str:
    """``name`` so that it still means the same from another folder."""
    return name if name in (DIGITS, "") else str(Path(name).absolute())


def load(name: str) -> Data:
    """The data set ``name``: "digits", an .npy or .npz file, or a folder of images.

    Digits are scikit-learn's 1,797 handwritten digits, 8x8, scaled from 0..16 to [0, 1]; 8-bit
    arrays and images are scaled to [0, 1]; other arrays are taken as they are.

    Raises:
        UserError: there is no such data, or it cannot be trained on; says why.
    """
    if name == DIGITS:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return Data(name, torch.from_numpy((digits.images / 16).astype(np.float32)), digits.target)
    path = Path(name)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if is_folder:
        rows, labels = read_images(path)
    elif is_file and path.suffix.lower() in (".npy", ".npz"):
        rows, labels = read_array(path)
    elif is_file:
        raise UserError(f"--data must be digits, an .npy or .npz file or a folder; got {path}")
    else:
        raise UserError(
            f"there is no data {path}: expected digits, an .npy or .npz file or a folder"
        )
    return Data(name, torch.from_numpy(np.ascontiguousarray(rows)), labels)


def split(data: Data, fraction: float, seed: int) -> Split:
    """Hold out ``fraction`` of the rows, chosen by ``seed``: at least one, leaving at least two."""
    count = len(data.rows)
    if count < 3:
        raise UserError(
            f"{data.name} must have at least 3 rows, 2 of them to train on; got {count}"
        )
    held = min(max(round(count * fraction), 1), count - 2)
    order = permutation(count, derive(seed, SPLIT))
    # Sorted: in the data's order, whatever the seed.
    held_out, train = np.sort(order[:held]), np.sort(order[held:])
    labels = None if data.labels is None else data.labels[held_out]
    return Split(data.rows[train], data.rows[held_out], labels)
