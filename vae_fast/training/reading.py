"""Reading files that anybody may have written: what is no good is refused, in one line.

A reader here does two things, and keeps them apart. It calls a parser (JSON, CSV, zip, NumPy's
header, Pillow, safetensors) within ``parsing``, which turns whatever the parser raises into one
refusal. Then it checks what came out, by code that cannot fail. So a mistake in the checks is not
taken for a bad file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vae_fast.training.errors import UserError

DEEPEST = 20  # levels of lists and objects in JSON
_SHOWN = 60  # characters of a value, in a message


def shown(value: object) -> str:
    """``value`` for a message: in one short line, whatever it is."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@contextlib.contextmanager
def parsing(path: Path | str, fault: str) -> Iterator[None]:
    """Only the call of a parser belongs in here: each of its errors is about the file.

    Args:
        path: the file, for the message.
        fault: what is said of the file before the parser's reason, as in "is damaged".

    Raises:
        UserError: the parser raised something, or the file cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow and NumPy, about strange files
            yield
    except UserError:
        raise
    except OSError as error:
        # Pillow and zipfile raise OSError for bad content too, then without a number.
        if error.errno is None:
            raise UserError(f"{path} {fault}: {_reason(error)}") from error
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise UserError(f"{path} {fault}: it is nested too deeply") from error
    except MemoryError as error:
        raise UserError(f"{path} {fault}: it asks for too much memory") from error
    except Exception as error:
        # The parsers have no error in common. They raise theirs, and those of what they call.
        raise UserError(f"{path} {fault}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if not text or isinstance(error, KeyError):
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= 300 else text[:300] + "..."


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """While entered, what C code writes to stderr is thrown away: the refusal says it."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    try:
        sys.stderr.flush()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class Bounded(io.RawIOBase):
    """A file of which no more is asked for than it has.

    ``read(n)`` of a file allocates n bytes before it reads, and a parser takes n from the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        left = max(self.size - self._file.tell(), 0)
        return self._file.read(left if size is None or size < 0 else min(size, left))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Bounded]:
    """The file ``path``; OSError where that fails, UserError where it is no regular file."""
    # Before it is opened: that of a pipe would wait for somebody to write.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise UserError(f"{path} must be a file; got a folder or a device")
    with open(path, "rb") as file:
        yield Bounded(file)


def read_bytes(path: Path, most: int) -> bytes:
    """The content of ``path``.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read, or has more than ``most`` bytes.
    """
    try:
        with opened(path) as file:
            if file.size > most:
                raise UserError(f"{path} must have at most {most} bytes; got {file.size}")
            return file.read(most)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has {name}, which is no number of JSON")


def _depth(value: Any) -> int:
    """Levels of lists and objects; without recursion, which is what it guards."""
    depth, level = 0, [value]
    while level:
        containers = [each for each in level if isinstance(each, (list, dict))]
        depth += bool(containers)
        level = [
            item
            for each in containers
            for item in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def parse_json(
    path: Path | str,
    content: bytes | str,
    fault: str = "is damaged",
    deepest: int = DEEPEST,
    strict: bool = True,
) -> Any:
    """The value of JSON text.

    Args:
        path: where it is from, for the message.
        fault: as for ``parsing``.
        deepest: levels of lists and objects that it may have.
        strict: refuse NaN and Infinity, which Python's JSON has besides the standard's numbers.

    Raises:
        UserError: it is no JSON, or is nested too deeply.
    """
    with parsing(path, fault):
        value = json.loads(content, parse_constant=_refuse_constant if strict else None)
    if (depth := _depth(value)) > deepest:
        raise UserError(
            f"{path} {fault}: it must have at most {deepest} levels of lists and objects; "
            f"got {depth}"
        )
    return value


def check_memory(path: Path, count: int) -> None:
    """UserError where ``count`` bytes are more than this machine has."""
    if not hasattr(os, "sysconf"):  # Windows, where an allocation fails that is too large
        return
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if count > most > 0:
        raise UserError(f"{path} must fit the memory of {most} bytes; its values need {count}")


def is_whole(value: object, low: int, high: int) -> bool:
    """Whether ``value`` is an int, and no bool, from ``low`` to ``high``."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number, and no bool, of float64's range."""
    most = 1.7976931348623157e308
    # Compared, not converted: an int may be larger than any float.
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and -most <= value <= most
    )
