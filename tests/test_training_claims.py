"""Files that claim more than they hold are refused before any memory is taken for it."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")

from command import fails
from PIL import Image

from vae_fast.training.data import load
from vae_fast.training.errors import UserError
from vae_fast.training.folder import RunFolder
from vae_fast.training.metrics import read_metrics
from vae_fast.training.storage import read_checkpoint

Capture = pytest.CaptureFixture[str]


@contextmanager
def little_memory(most: int = 8 << 20) -> Iterator[None]:
    """NumPy's and Python's memory stays below ``most`` bytes, touched or not."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def header(shape: str, descr: str = "'<f4'", length: int | None = None) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length or len(text)) + text


CLAIMS = {
    "elements": (header("(10**15, 1)"), "is not a whole NumPy file"),
    "more elements": (header(f"({10**15}, 1)") + bytes(99), f"have {4 * 10**15} bytes; got 99"),
    "no bytes each": (header(f"({10**15}, 1)", "'|V0'"), "must hold numbers"),
    "a negative size": (header("(-4, 1)"), "its shape must be sizes"),
    "a size that is true": (header("(True, 1)"), "its shape must be sizes"),
    "a long header": (header("(4, 1)", length=65535), "at most 10000 bytes; got 65535"),
    "a very long header": (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", "at most 10000 bytes"),
    "a cut header": (header("(4, 1)", length=500), "it ends in its header"),
    "an open bracket": (header("(4, 1"), "is not a whole NumPy file"),
    "deep brackets": (header("(" * 3000), "is not a whole NumPy file"),
    "an infinite size": (header("(1e999, 1)"), "is not a whole NumPy file"),
    "objects": (header("(4, 1)", "'O'") + bytes(99), "Python objects.* not loaded"),
    "a version": (b"\x93NUMPY\x09\x00\x10\x00" + bytes(99), "must hold an array of numbers"),
    "truth of 7": (header("(4, 1)", "'|b1'") + b"\0\1\7\1", "truth values must be bytes 0 and 1"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_npy(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.npy"
    content, message = CLAIMS[name]
    path.write_bytes(content)
    with little_memory(), pytest.raises(UserError, match=message) as caught:
        load(str(path))
    assert str(path) in str(caught.value)


def zipped(content: bytes, kind: int, name: str = "x.npy") -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr(name, content)
    return bytearray(file.getvalue())


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_that_promises_more_than_it_can_hold(tmp_path: Path, kind: int) -> None:
    path, count = tmp_path / "rows.npz", 10**9
    start = header(f"({count}, 1)")
    content = zipped(start + bytes(10_000), kind)
    path.write_bytes(content)
    with little_memory(), pytest.raises(UserError, match=rf"have {4 * count} bytes; got 10000"):
        load(str(path))
    # And where the archive itself makes the same promise.
    place = content.rindex(b"PK\x01\x02") + 24
    content[place : place + 4] = struct.pack("<I", 4 * count + len(start))
    path.write_bytes(content)
    with little_memory(), pytest.raises(UserError, match=r"rows\.npz .* it promises"):
        load(str(path))


def test_npz_that_unpacks_to_something_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    for content, message in (
        (zipped(header("(5, 2)") + bytes(48), zipfile.ZIP_DEFLATED), "have 40 bytes; got 48"),
        (zipped(b"no array", zipfile.ZIP_STORED), "must hold an array of numbers"),
        (zipped(header("(5, 2)") + bytes(40), zipfile.ZIP_LZMA), "must be stored or deflated"),
    ):
        path.write_bytes(content)
        with little_memory(), pytest.raises(UserError, match=message):
            load(str(path))


def test_labels_are_checked_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    for labels, message in (
        (header(f"({10**15},)", "'<U5'"), r"labels must have shape \(5,\)"),
        (header("(5,)", "'|S0'"), "labels must be numbers or text"),
        (header("(5,)", "'<U1'") + b"\xff" * 20, "codes that are no characters"),
        (header("(5,)", "'<f8'") + b"\xff" * 40, "labels must be finite"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", header("(5, 2)") + bytes(40))
            archive.writestr("y.npy", labels)
        with little_memory(), pytest.raises(UserError, match=message):
            load(str(path))


def test_more_values_than_memory(tmp_path: Path) -> None:
    """A sparse file can be as long as it says."""
    with open(tmp_path / "rows.npy", "wb") as file:
        file.write(header(f"({2**40}, 1)"))
        file.truncate(2**43)
    with little_memory(), pytest.raises(UserError, match=f"its values need {2**43}"):
        load(str(tmp_path / "rows.npy"))


def resized(content: bytes, width: int, height: int) -> bytes:
    """A PNG file that claims another size."""
    head = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + head + struct.pack(">I", zipfile.crc32(head)) + content[33:]


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (4097, "must have at most 16777216 pixels; got 4097x4097"),
        (10_000, "must have at most 16777216 pixels; got 10000x10000"),
        (100_000, "cannot be read as an image: .* exceeds limit"),  # Pillow's own
        (2**31 - 1, "cannot be read as an image"),
    ],
)
def test_images_of_too_many_pixels(tmp_path: Path, side: int, message: str) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (5, 4)).save(path)
    path.write_bytes(resized(path.read_bytes(), side, side))
    with little_memory(), pytest.raises(UserError, match=rf"a\.png {message}"):
        load(str(tmp_path))


def test_images_of_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        Image.new("L", (500, 400)).save(tmp_path / f"{name}.png")
    assert load(str(tmp_path)).rows.shape == (3, 400, 500)
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 500}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    with pytest.raises(UserError, match=r"must fit the memory of 2048000 bytes.* need 2400000"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x78\x9c", b"\xff\xff"),  # where the packed pixels begin
        (struct.pack("<HHIH", 277, 3, 1, 3), struct.pack("<HHIH", 277, 3, 1, 7)),  # channels
    ],
    ids=["by its library", "by Pillow"],
)
def test_nothing_but_the_refusal_is_said_of_a_tiff_file(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    old: bytes,
    new: bytes,
) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (50, 40)).save(path, compression="tiff_deflate")
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    options = [f"--data={tmp_path}", f"--out={tmp_path / 'run'}"]
    text = fails(capfd, "train", *options)
    assert text.startswith(f"{path} cannot be read as an image: ")
    assert not caplog.records


def test_other_formats_behind_an_image_s_name(tmp_path: Path) -> None:
    """Pillow would start another program for PostScript."""
    Image.new("RGB", (5, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image"):
        load(str(tmp_path))


def test_checkpoints_that_claim_too_much(tmp_path: Path) -> None:
    path = tmp_path / "c"

    def written(**tensor: Any) -> None:
        text = json.dumps({"x": tensor}).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(40))

    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with little_memory(), pytest.raises(UserError, match="damaged or no checkpoint"):
        read_checkpoint(path)
    for shape, end in (([2**40], 2**42), ([10], 40), ([2**62, 2**62, 0], 0)):
        written(dtype="F32", shape=shape, data_offsets=[0, end])
        with little_memory(), pytest.raises(UserError, match="damaged or no checkpoint"):
            read_checkpoint(path)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs pipes")
    for name in ("config.json", "metrics.csv", "checkpoint.safetensors"):
        os.mkfifo(tmp_path / name)
    run = RunFolder(tmp_path)
    for read in (run.read_config, lambda: read_metrics(run.metrics),
                 lambda: read_checkpoint(run.checkpoint)):  # fmt: skip
        with pytest.raises(UserError, match="must be a file"):
            read()
