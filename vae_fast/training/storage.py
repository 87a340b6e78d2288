"""Files that are whole or not there, and checkpoints that hold tensors and JSON and no code."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from vae_fast.training.errors import UserError
from vae_fast.training.reading import opened, parse_json, parsing, shown

FORMAT = "vae-fast checkpoint 1"
FAULT = "is damaged or no checkpoint of vae-fast"
DEEPEST = 100  # levels of lists and objects in a tree; a usual one has 25
# A shared log-variance and Adam's moments of it, which in older files have no dimension.
ONCE_WITHOUT_DIMENSION = ("decoder_logvar", "exp_avg", "exp_avg_sq")
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


def temporary_name(path: Path) -> Path:
    """Where ``path`` is written first: beside it, since a rename is atomic in one file system."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def atomic_write(path: Path, content: bytes) -> None:
    """Write ``content`` so that at every moment ``path`` holds its old bytes or all the new ones.

    Raises:
        UserError: the operating system refuses; the old bytes are then still there.
    """
    temporary = temporary_name(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    # The rename itself survives a power cut only once the folder is on disk. Not every file
    # system can do that, and the file is whole either way.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        while name in tensors:  # {"a.b": ...} beside {"a": {"b": ...}}
            name += "_"
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        items = [[key, _encode(item, f"{name}.{key}", tensors)] for key, item in value.items()]
        return {"dict": items}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} must be a tensor or plain data; got {type(value).__name__}")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that ``_encode`` was given; ValueError where there cannot have been one."""
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()), (None, None))
    if len(value) == 1 and kind == "tensor" and isinstance(content, str) and content in tensors:
        return tensors[content]
    if len(value) == 1 and kind == "tuple" and isinstance(content, list):
        return tuple(_decode(item, tensors) for item in content)
    if len(value) == 1 and kind == "dict" and isinstance(content, list):
        pairs = [item for item in content if isinstance(item, list) and len(item) == 2]
        if len(pairs) == len(content) and not any(isinstance(k, (list, dict)) for k, _ in pairs):
            return {key: _decode(item, tensors) for key, item in pairs}
    raise ValueError(f"its tree has an unknown entry, {shown(value)}")


def _checksum(tree: str, tensors: dict[str, Tensor]) -> str:
    value = zlib.crc32(tree.encode())
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write nested dicts, lists and tuples of tensors and plain values as one safetensors file.

    The tensors are the file's tensors, under dotted names; all else is JSON in its metadata.

    Raises:
        TypeError: a value is neither a tensor nor plain data.
        UserError: as ``atomic_write``.
    """
    tensors: dict[str, Tensor] = {}
    items = {key: _encode(value, key, tensors) for key, value in checkpoint.items()}
    tree = json.dumps(items)
    metadata = {"format": FORMAT, "tree": tree, "crc32": _checksum(tree, tensors)}
    atomic_write(path, save(tensors, metadata))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``write_checkpoint`` wrote, with every tensor on the CPU.

    Raises:
        UserError: there is no such file, it is not such a checkpoint, or it is damaged.
    """
    try:
        with opened(path) as file, parsing(path, FAULT), _silent_panics():
            metadata, tensors = _read_tensors(path, file.size)
    except FileNotFoundError as error:
        raise UserError(f"there is no checkpoint {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    tree, checksum = metadata.get("tree"), metadata.get("crc32")
    if metadata.get("format") != FORMAT or tree is None or checksum is None:
        given = shown(metadata.get("format"))
        raise UserError(f"{path} {FAULT}: its format is {given}, not {FORMAT!r}")
    if _checksum(tree, tensors) != checksum:
        raise UserError(f"{path} {FAULT}: its checksum does not match its contents")
    for name, value in tensors.items():
        if value.dim() == 0 and name.rpartition(".")[2] in ONCE_WITHOUT_DIMENSION:
            tensors[name] = value.reshape(1)
    items = parse_json(path, tree, FAULT, DEEPEST, strict=False)
    if not isinstance(items, dict):
        raise UserError(f"{path} {FAULT}: its tree must be an object; got {shown(items)}")
    try:
        return {key: _decode(value, tensors) for key, value in items.items()}
    except ValueError as error:
        raise UserError(f"{path} {FAULT}: {error}") from error


def _read_tensors(path: Path, size: int) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file of ``size`` bytes."""
    with safe_open(path, framework="pt") as file:
        tensors = {}
        for name in file.keys():  # noqa: SIM118
            entry = file.get_slice(name)
            shape, dtype = entry.get_shape(), entry.get_dtype()
            # Without values a tensor of any shape has no bytes; no optimiser has one of 2**62.
            if dtype not in DTYPES or any(each > max(size, 1) for each in shape):
                raise ValueError(f"it has a tensor of type {dtype} and shape {shape}")
            tensors[name] = file.get_tensor(name).clone()
        return file.metadata() or {}, tensors


@contextlib.contextmanager
def _silent_panics() -> Iterator[None]:
    """A panic of safetensors' Rust code, which is no Exception, as a ValueError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise ValueError(str(error)) from error
        raise
