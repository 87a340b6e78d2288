"""Files that are whole or not there, and checkpoints that hold tensors and JSON and no code."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vae_fast.training.errors import UserError

FORMAT = "vae-fast checkpoint 1"


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
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    raise ValueError(f"unknown entry {kind!r}")


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
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
        if _checksum(metadata["tree"], tensors) != metadata["crc32"]:
            raise ValueError("its checksum does not match its contents")
        return {key: _decode(value, tensors) for key, value in json.loads(metadata["tree"]).items()}
    except FileNotFoundError as error:
        raise UserError(f"there is no checkpoint {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged or no checkpoint of vae-fast: {error}") from error
