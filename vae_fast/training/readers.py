"""Data files: NumPy arrays and folders of images, checked before anything is computed."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from vae_fast.training.arrays import Archive, Header, read_npy
from vae_fast.training.errors import UserError
from vae_fast.training.reading import check_memory, opened, parsing, shown, silent_stderr

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MOST_PIXELS = 2**24  # of an image: 4096 x 4096

# Integers up to here are float32 numbers; beyond, neighbours become one.
EXACT = 2**24


def check_rows(dtype: np.dtype[Any], shape: tuple[int, ...], source: str) -> None:
    """UserError where an array of that type and shape cannot be rows."""
    if dtype.kind not in "buif":
        raise UserError(f"{source} must hold numbers; got values of type {shown(str(dtype))}")
    if len(shape) < 2 or len(shape) > 4:
        raise UserError(
            f"{source} must be an array [rows, features], [rows, height, width], "
            "[rows, channels, height, width] or [rows, height, width, channels]; "
            f"got shape {shown(shape)}"
        )
    if 0 in shape:
        raise UserError(f"{source} must have rows with values; got shape {shown(shape)}")


def to_float32(array: np.ndarray, source: str) -> np.ndarray:
    """``array`` as finite float32; 8-bit values are scaled to [0, 1].

    Raises:
        UserError: another kind of values, no rows, or values that are not finite float32 numbers.
    """
    check_rows(array.dtype, array.shape, source)
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
    with np.errstate(all="ignore"):
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


def _names(archive: Archive) -> tuple[str, str | None]:
    """The names of the rows and of the labels in an .npz file."""
    keys = archive.names
    label_key = next((key for key in ("y", "labels") if key in keys), None)
    others = [key for key in keys if key != label_key]
    named = [key for key in ("x", "data") if key in others]
    row_key = named[0] if named else others[0] if len(others) == 1 else None
    if row_key is None:
        raise UserError(
            f"{archive.path} must have its rows under x or data, or a single array; "
            f"got {shown(', '.join(keys) or 'none')}"
        )
    return row_key, label_key


def _check_labels(labels: np.ndarray, path: Path) -> None:
    """UserError where they are no numbers and no text that can be shown."""
    kind = labels.dtype.kind
    if kind == "f":
        with np.errstate(all="ignore"):
            finite = np.isfinite(labels.astype(np.float64)).all()
        if not finite:
            raise UserError(f"{path}: labels must be finite")
    if kind == "U":
        codes = labels.astype(labels.dtype.newbyteorder("=")).view(np.uint32)
        if ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF))).any():
            raise UserError(f"{path}: labels must be text; got codes that are no characters")


def read_array(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows, float32, of an .npy or .npz file, and labels ``[N]`` where it has them.

    An .npz file has its rows under ``x`` or ``data``, or as its only array, and may have labels
    under ``y`` or ``labels``.
    """

    def check(header: Header) -> None:
        check_rows(header.dtype, header.shape, str(path))

    def check_labels(header: Header) -> None:
        if header.dtype.kind not in "buifSU" or header.dtype.itemsize == 0:
            raise UserError(
                f"{path}: labels must be numbers or text; got {shown(str(header.dtype))}"
            )
        if header.shape != (len(array),):
            raise UserError(
                f"{path}: labels must have shape ({len(array)},); got {shown(header.shape)}"
            )

    labels = None
    try:
        with opened(path) as file:
            start = file.read(4)
            file.seek(0)
            if start[:2] == b"PK":
                archive = Archive(file, path)
                row_key, label_key = _names(archive)
                array = archive.read(row_key, check)
                if label_key is not None:
                    labels = archive.read(label_key, check_labels)
                    _check_labels(labels, path)
            else:
                array = read_npy(file, path, check)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return channels_first(to_float32(array, str(path))), labels


def _image(path: Path, expected: tuple[Path, tuple[int, int]] | None, count: int) -> np.ndarray:
    """One image as ``[H, W]`` (grey) or ``[3, H, W]``, uint8 or uint16.

    Args:
        path: of the image.
        expected: an image that was read before, and its width and height, which this one must have.
        count: how many images there are, each of which needs as much memory.
    """
    from PIL import Image

    fault = "cannot be read as an image"
    with opened(path) as file, parsing(path, fault):
        # Others run programs, such as Ghostscript, whatever the file is called.
        image = Image.open(cast(IO[bytes], file), formats=IMAGE_FORMATS)
        size, mode = image.size, image.mode
        # Before it is unpacked: a few bytes can be billions of pixels.
        if size[0] * size[1] > MOST_PIXELS:
            raise UserError(
                f"{path} must have at most {MOST_PIXELS} pixels; got {size[0]}x{size[1]}"
            )
        if expected is not None and size != expected[1]:
            (first, (w0, h0)), (w, h) = expected, size
            raise UserError(
                f"{path.parent} must hold images of one size; got {w0}x{h0} ({first.name}) "
                f"and {w}x{h} ({path.name})"
            )
        check_memory(path.parent, 4 * size[0] * size[1] * count)
        with silent_stderr() if image.format == "TIFF" else contextlib.nullcontext():
            image.load()
        if mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)
        if mode in ("I", "F"):
            raise UserError(f"{path} must have 8 or 16 bits a channel; got mode {mode}")
        grey = mode in ("1", "L", "LA")
        array = np.asarray(image.convert("L" if grey else "RGB"))
        return array if grey else np.ascontiguousarray(array.transpose(2, 0, 1))


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
    # It says of some broken images what the refusal says too.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    images: list[np.ndarray] = []
    expected = None
    for path in paths:
        try:
            images.append(_image(path, expected, len(paths)))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        height, width = images[0].shape[-2:]
        expected = paths[0], (width, height)
    scaled = [
        np.divide(image, np.iinfo(image.dtype).max, dtype=np.float32, casting="unsafe")
        for image in images
    ]
    if any(image.ndim == 3 for image in scaled):
        scaled = [image if image.ndim == 3 else np.stack([image] * 3) for image in scaled]
    groups = [path.relative_to(folder).parts[0] for path in paths]
    grouped = all(len(path.relative_to(folder).parts) > 1 for path in paths)
    return np.stack(scaled), np.array(groups) if grouped and len(set(groups)) > 1 else None
