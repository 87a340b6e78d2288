"""Data files: NumPy arrays and folders of images, checked before anything is computed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vae_fast.training.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

# Integers up to here are float32 numbers; beyond, neighbours become one.
EXACT = 2**24


def to_float32(array: np.ndarray, source: str) -> np.ndarray:
    """``array`` as finite float32; 8-bit values are scaled to [0, 1].

    Raises:
        UserError: another kind of values, no rows, or values that are not finite float32 numbers.
    """
    if array.dtype.kind not in "buif":
        raise UserError(f"{source} must hold numbers; got values of type {array.dtype}")
    if array.ndim < 2 or array.ndim > 4:
        raise UserError(
            f"{source} must be an array [rows, features], [rows, height, width], "
            "[rows, channels, height, width] or [rows, height, width, channels]; "
            f"got shape {array.shape}"
        )
    if array.size == 0:
        raise UserError(f"{source} must have rows with values; got shape {array.shape}")
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if array.dtype.kind in "ui":
        low, high = int(array.min()), int(array.max())
        if low < -EXACT or high > EXACT:
            raise UserError(
                f"{source} must hold whole numbers of at most {EXACT} in size, which float32 can "
                f"tell apart; got {low} to {high}: rescale them first"
            )
        return array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = ", ".join(map(str, bad[0]))
        raise UserError(
            f"{source} must hold finite numbers; got {len(bad)} NaN or infinite ones, "
            f"the first, {array[tuple(bad[0])]}, at [{where}]"
        )
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)
    if not np.isfinite(result).all():
        limit = float(np.finfo(np.float32).max)
        raise UserError(
            f"{source} must hold numbers that fit float32, up to {limit:.3g} in size; "
            f"got one of {float(np.abs(array).max()):.3g}: rescale them first"
        )
    return result


def channels_first(array: np.ndarray) -> np.ndarray:
    """Colour images ``[N, H, W, C]``, C being 1 or 3, as ``[N, C, H, W]``; all else as it is."""
    if array.ndim == 4 and array.shape[-1] in (1, 3) and array.shape[1] not in (1, 3):
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    return array


def _load(file: BinaryIO, path: Path) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise UserError(
                f"{path} must hold an array of numbers; got Python objects or no NumPy file at "
                "all, and those are not loaded, since that would run code from the file"
            ) from error
        raise UserError(f"{path} is not a whole NumPy file: {error}") from error


def _members(archive: Any, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows and the labels of an .npz file."""
    keys = list(archive.files)
    label_key = next((key for key in ("y", "labels") if key in keys), None)
    others = [key for key in keys if key != label_key]
    named = [key for key in ("x", "data") if key in others]
    row_key = named[0] if named else others[0] if len(others) == 1 else None
    if row_key is None:
        raise UserError(
            f"{path} must have its rows under x or data, or a single array; "
            f"got {', '.join(keys) or 'none'}"
        )
    try:
        return archive[row_key], None if label_key is None else archive[label_key]
    except Exception as error:  # zlib.error is no kind of ValueError or OSError
        raise UserError(f"{path}: an array in it cannot be read: {error}") from error


def read_array(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows, float32, of an .npy or .npz file, and labels ``[N]`` where it has them.

    An .npz file has its rows under ``x`` or ``data``, or as its only array, and may have labels
    under ``y`` or ``labels``.
    """
    try:
        with open(path, "rb") as file:
            loaded = _load(file, path)
            is_array = isinstance(loaded, np.ndarray)
            array, labels = (loaded, None) if is_array else _members(loaded, path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    rows = channels_first(to_float32(array, str(path)))
    if labels is not None and (labels.ndim != 1 or len(labels) != len(rows)):
        raise UserError(f"{path}: labels must have shape ({len(rows)},); got {labels.shape}")
    if labels is not None and labels.dtype.kind not in "buifSU":
        raise UserError(f"{path}: labels must be numbers or text; got {labels.dtype}")
    return rows, labels


def _image(path: Path) -> np.ndarray:
    """One image as ``[H, W]`` (grey) or ``[3, H, W]``, uint8 or uint16."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):
                return np.asarray(image).astype(np.uint16)
            if image.mode in ("I", "F"):
                raise UserError(f"{path} must have 8 or 16 bits a channel; got mode {image.mode}")
            grey = image.mode in ("1", "L", "LA")
            array = np.asarray(image.convert("L" if grey else "RGB"))
            return array if grey else np.ascontiguousarray(array.transpose(2, 0, 1))
    except UserError:
        raise
    except Exception as error:  # a broken image raises whatever its decoder raises
        raise UserError(f"{path} cannot be read as an image: {error}") from error


def read_images(folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The images below ``folder``, scaled to [0, 1], float32, in order of their paths.

    Grey ones give ``[N, H, W]``; where any has colours, all are ``[N, 3, H, W]``. Where every
    image lies in a subfolder, the subfolders' names are the labels.
    """
    try:
        paths = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not path.name.startswith(".")
            and path.is_file()
        )
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}") from error
    if not paths:
        raise UserError(
            f"{folder} must hold images ({', '.join(s[1:] for s in IMAGE_SUFFIXES)}); got none"
        )
    images = [_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape[-2:] != images[0].shape[-2:]:
            (h0, w0), (h, w) = images[0].shape[-2:], image.shape[-2:]
            raise UserError(
                f"{folder} must hold images of one size; got {w0}x{h0} ({paths[0].name}) "
                f"and {w}x{h} ({path.name})"
            )
    scaled = [image.astype(np.float32) / np.iinfo(image.dtype).max for image in images]
    if any(image.ndim == 3 for image in scaled):
        scaled = [image if image.ndim == 3 else np.stack([image] * 3) for image in scaled]
    groups = [path.relative_to(folder).parts[0] for path in paths]
    grouped = all(len(path.relative_to(folder).parts) > 1 for path in paths)
    return np.stack(scaled), np.array(groups) if grouped and len(set(groups)) > 1 else None
