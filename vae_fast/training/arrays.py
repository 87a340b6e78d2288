"""NumPy's files, read so that nothing is allocated that the file does not hold.

``numpy.load`` allocates what a header claims before it looks for the values.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from vae_fast.training.errors import UserError
from vae_fast.training.reading import Bounded, check_memory, is_whole, parsing, shown

FAULT = "is not a whole NumPy file"
# Of a header, in bytes: as for numpy.load.
LONGEST_HEADER = 10_000
# The most bytes that deflate makes of one.
DEFLATE = 1032
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Header:
    """What an .npy file says of its array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int  # bytes before the values

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return self.count * self.dtype.itemsize


Check = Callable[[Header], None]


def _read_header(file: IO[bytes] | Bounded, path: Path) -> Header:
    magic = file.read(8)
    widths = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}
    if magic not in widths:
        raise UserError(
            f"{path} must hold an array of numbers; got Python objects or no NumPy file at all, "
            "and those are not loaded, since that would run code from the file"
        )
    width = widths[magic]
    length = file.read(width)
    expected = int.from_bytes(length, "little")
    if len(length) < width or expected > LONGEST_HEADER:
        raise UserError(
            f"{path} {FAULT}: its header must have at most {LONGEST_HEADER} bytes; got {expected}"
        )
    content = file.read(expected)
    if len(content) < expected:
        raise UserError(f"{path} {FAULT}: it ends in its header")
    parse = (
        np.lib.format.read_array_header_1_0 if width == 2 else (np.lib.format.read_array_header_2_0)
    )
    with parsing(path, FAULT):
        shape, fortran, dtype = parse(io.BytesIO(length + content), LONGEST_HEADER)
    if len(shape) > 32 or not all(is_whole(each, 0, 2**62) for each in shape):
        raise UserError(f"{path} {FAULT}: its shape must be sizes; got {shown(shape)}")
    if dtype.hasobject:
        raise UserError(
            f"{path} must hold an array of numbers; got Python objects, and those are not loaded, "
            "since that would run code from the file"
        )
    return Header(dtype, tuple(shape), bool(fortran), 8 + width + expected)


def _as_array(header: Header, content: bytes | bytearray, path: Path) -> np.ndarray:
    array = np.frombuffer(content, header.dtype, header.count)
    if header.dtype.kind == "b" and (array.view(np.uint8) > 1).any():
        raise UserError(f"{path} {FAULT}: its truth values must be bytes 0 and 1")
    if header.fortran:
        return array.reshape(header.shape[::-1]).transpose()
    return array.reshape(header.shape)


def read_npy(file: Bounded, path: Path, check: Check) -> np.ndarray:
    """The array of an .npy file; ``check`` is asked before any value is read."""
    header = _read_header(file, path)
    check(header)
    left = file.size - header.start
    if header.size > left:
        raise UserError(
            f"{path} {FAULT}: {shown(header.shape)} values of type {header.dtype} have "
            f"{header.size} bytes; got {left}"
        )
    check_memory(path, header.size + 4 * header.count)
    content = file.read(header.size)
    if len(content) < header.size:
        raise UserError(f"{path} {FAULT}: it became shorter while it was read")
    return _as_array(header, content, path)


class Archive:
    """The arrays of an .npz file, by name."""

    def __init__(self, file: Bounded, path: Path) -> None:
        self.path, self._size = path, file.size
        with parsing(path, FAULT):
            self._zip = zipfile.ZipFile(file)
            members = self._zip.infolist()
        self._members = {each.filename.removesuffix(".npy"): each for each in members}
        if len(self._members) < len(members):
            raise UserError(f"{path} {FAULT}: it must have each name once")

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str, check: Check) -> np.ndarray:
        """The array ``name``; ``check`` is asked before any value is read."""
        member = self._members[name]
        self._check_sizes(name, member)
        fault = f"has an array that cannot be read, {shown(name)}"
        with self._stream(member, fault) as stream:
            header = _read_header(stream, self.path)
        check(header)
        if header.start + header.size != member.file_size:
            raise UserError(
                f"{self.path} {fault}: {shown(header.shape)} values of type {header.dtype} have "
                f"{header.size} bytes; got {member.file_size - header.start}"
            )
        check_memory(self.path, header.size + 4 * header.count)
        content = bytearray()
        with self._stream(member, fault) as stream:
            stream.read(header.start)
            # Part by part: the memory follows what there is, not what is promised. The last part
            # is empty, and reading it compares the checksum.
            while part := stream.read(_CHUNK):
                content += part
        if len(content) != header.size:
            raise UserError(f"{self.path} {fault}: it has {len(content)} of {header.size} bytes")
        return _as_array(header, content, self.path)

    @contextmanager
    def _stream(self, member: zipfile.ZipInfo, fault: str) -> Iterator[IO[bytes]]:
        with parsing(self.path, fault), self._zip.open(member) as stream:
            yield stream

    def _check_sizes(self, name: str, member: zipfile.ZipInfo) -> None:
        """Refuse what NumPy does not write, and a size that cannot come out."""
        kinds = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: DEFLATE}
        if member.compress_type not in kinds or member.flag_bits & 1:
            raise UserError(
                f"{self.path} {FAULT}: {shown(name)} must be stored or deflated, and not encrypted"
            )
        packed = min(member.compress_size, self._size)
        most = packed * kinds[member.compress_type]
        if member.file_size > most:
            raise UserError(
                f"{self.path} {FAULT}: {shown(name)} must have at most {most} bytes, since it has "
                f"{packed} packed; it promises {member.file_size}"
            )
