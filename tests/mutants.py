"""Mutants of files for ``fuzz_readers.py``: bytes, JSON, checkpoints, arrays and images."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vae_fast.training.storage import write_checkpoint

Make = Callable[[random.Random], bytes]
ROWS = np.random.default_rng(0).random((20, 3, 4), dtype=np.float32)

TOKENS = [
    b"1e999", b"-1e999", b"NaN", b"Infinity", b"-1", b"0", b"1e308", b"[" * 2000, b"{" * 2000,
    b'{"a":' * 500, b"(" * 200, b"9" * 5000, b"9" * 30, b"\0", b"\xff\xfe", b'"', b"\n", b"\r",
    b",", b"\\ud800", b"null", b"true", b"inf", b"nan", b"1" * 200_000, b"(10**15,)", b"'O'",
    b"10L", b"\xef\xbb\xbf", struct.pack("<Q", 2**40), struct.pack("<Q", 2**64 - 1),
    struct.pack(">I", 2**31 - 1), struct.pack("<I", 2**32 - 1), struct.pack("<H", 2**16 - 1),
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 255, 2**31, 2**53, 2**62, 2**63, 10**15, 10**30, 10**400,
    -(10**400), 0.5, -0.0, 1e-300, 1e39, 1e308, float("inf"), float("-inf"), float("nan"), "", "x",
    "1", "digits", "\0", "\ud800", "$\\frac$", "a\nb\x1b[2J", "cpu", "optimal", [], {}, [1], [[1]],
    [0, 0], [10**6, 10**6], [10**9] * 3, {"a": 1}, {"tensor": "x"}, {"dict": []},
    {"tuple": [1, [2]]}, {"dict": [[[], 1]]}, [None] * 50, "y" * 70_000,
]  # fmt: skip
NESTED: Any = []
for _ in range(60):
    NESTED = [NESTED]
VALUES.append(NESTED)


def mutate_bytes(chance: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Some bytes changed, cut, moved, doubled or joined with those of another file."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        kind = chance.randrange(8)
        place = chance.randrange(len(data) + 1)
        # Most formats have their structure in the first bytes, and zip at the end too.
        if chance.random() < 0.5:
            place = min(place, chance.randrange(200))
        elif chance.random() < 0.3:
            place = max(len(data) - chance.randrange(200), 0)
        end = min(place + chance.choice((1, 2, 4, 8, 64, 1000)), len(data))
        if kind == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1 and place < len(data):
            data[place] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        elif kind == 2:
            del data[place : chance.choice((end, len(data)))]
        elif kind == 3:
            data[place:place] = data[place:end] * chance.choice((1, 2, 50))
        elif kind == 4:
            other = chance.choice(others)
            data[place:] = other[chance.randrange(len(other) + 1) :]
        elif kind == 5:
            other = chance.choice(others)
            start = chance.randrange(len(other) + 1)
            data[place:place] = other[start : start + 64]
        elif kind == 6:
            token = chance.choice(TOKENS)
            data[place : place + chance.choice((0, len(token)))] = token
        else:
            data[place:end] = bytes(chance.randrange(256) for _ in range(end - place))
    return bytes(data)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object in ``value`` with each of its keys."""
    if isinstance(value, (dict, list)):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield value, key
            yield from places(value[key])


def mutate_tree(chance: random.Random, tree: Any) -> Any:
    """Values of nested lists and objects replaced by any others, removed, doubled or added."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        found = list(places(tree))
        if not found:
            return tree
        container, key = chance.choice(found)
        kind = chance.randrange(6)
        if kind <= 2:
            container[key] = copy.deepcopy(chance.choice(VALUES))
        elif kind == 3:
            other, place = chance.choice(found)
            if isinstance(other, dict) or place < len(other):
                container[key] = copy.deepcopy(other[place])
        elif kind == 4:
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(chance.choice(VALUES)))
        else:
            container[chance.choice(("a", "", "x\0", str(key) + "_"))] = chance.choice(VALUES)
    return tree


def packed(tree: object, tensors: dict[str, tuple[str, list[int], bytes]], **more: str) -> bytes:
    """A safetensors file with a right checksum, whatever is in it."""
    text = tree if isinstance(tree, str) else json.dumps(tree)
    header: dict[str, Any] = {}
    start = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + len(data)]}
        start += len(data)
    value = zlib.crc32(text.encode(errors="surrogatepass"))
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name][2], value)
    header["__metadata__"] = {
        "format": "vae-fast checkpoint 1", "tree": text, "crc32": f"{value:08x}", **more,
    }  # fmt: skip
    return safetensors_file(header, b"".join(data for _, _, data in tensors.values()))


def safetensors_file(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def unpacked(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


WIDE = {"F32": np.float32, "F64": np.float64}


def checkpoint_mutants(folder: Path) -> Make:
    """Of the checkpoint of the run in ``folder``."""
    good = (folder / "run" / "checkpoint.safetensors").read_bytes()
    small = folder / "small"
    write_checkpoint(small, {"state_dict": {"a": torch.ones(3)}, "loops": (1, None, "x")})
    others = [good, small.read_bytes(), (folder / "run" / "config.json").read_bytes()]
    header, data = unpacked(good)
    metadata = header["__metadata__"]
    tree = json.loads(metadata["tree"])
    tensors = {
        name: (each["dtype"], each["shape"], data[slice(*each["data_offsets"])])
        for name, each in header.items()
        if name != "__metadata__"
    }

    def make(chance: random.Random) -> bytes:
        kind = chance.randrange(5)
        if kind == 0:
            return mutate_bytes(chance, chance.choice((good, others[1])), others)
        if kind == 1:  # safetensors' own header
            return safetensors_file(mutate_tree(chance, header), data)
        if kind <= 3:  # the tree, with a right checksum
            return packed(mutate_tree(chance, tree), tensors)
        changed = dict(tensors)
        for _ in range(chance.choice((1, 2))):
            name = chance.choice(list(changed))
            dtype, shape, content = changed[name]
            action = chance.randrange(4) if dtype in WIDE else 0
            if action == 0:
                changed[name] = chance.choice(list(tensors.values()))
            elif action == 1:
                values = np.frombuffer(content, WIDE[dtype]).copy()
                values[chance.randrange(len(values))] = chance.choice(
                    (np.nan, np.inf, -np.inf, 3e38, -1e30, 0.0)
                )
                changed[name] = (dtype, shape, values.tobytes())
            elif action == 2:
                changed[name] = (dtype, [1, *shape][:: chance.choice((1, -1))], content)
            else:
                other = chance.choice(("I32", "BOOL", "F16", "F8_E4M3", "C64", "U64", "X"))
                changed[name] = (other, shape, content)
        return packed(tree, changed)

    return make


def npy(array: np.ndarray, **options: Any) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, **options)
    return content.getvalue()


def header_of(text: str, version: int = 1, data: bytes = b"") -> bytes:
    """An .npy file with any text for a header."""
    header = text.encode("latin1", "replace")
    length = struct.pack("<H" if version == 1 else "<I", len(header) & 0xFFFF)
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


DTYPES = (
    "'<f4'", "'<f8'", "'|u1'", "'|b1'", "'O'", "'<U3'", "'<U0'", "'V0'", "'<f16'", "'<c8'", "5",
    "[('a', '<f4')]", "[('a', '<f4', (10**9,))]", "'(3,)f4'", "'<f99'", "[]", "None", "'<M8[s]'",
    "'" + "f" * 500 + "'", "[('a', [('b', 'O')])]", "'>i2'", "'<f2'",
)  # fmt: skip
SHAPES = (
    "(20, 3, 4)", "(20, 12)", "(10**15,)", "(1000000000000000,)", "(20, 99999999999)", "(-1, 12)",
    "(20, -12)", "(0, 5)", "()", "5", "[20, 12]", "(20, 12.0)", "(True, 240)", "(20, None)",
    "(" + "1, " * 40 + ")", "(99999999999999999999999999, 0)", "(20L, 12L)", "('a',)",
    "((20,), 12)", "(" * 90 + ")" * 90, "(20, 1e999)",
)  # fmt: skip


def made_up_header(chance: random.Random) -> bytes:
    text = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}\n".format(
        chance.choice(DTYPES), chance.choice(("False", "True", "0", "None")), chance.choice(SHAPES)
    )
    return header_of(
        text, chance.choice((1, 2, 3)), ROWS.tobytes()[: chance.choice((0, 960, 9999))]
    )


def bomb(promised: int, kind: int) -> bytes:
    """An .npz file of few bytes with an array that promises many."""
    content = io.BytesIO()
    header = header_of(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({promised // 4}, 1)}}")
    with zipfile.ZipFile(
        content, "w", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[kind % 2]
    ) as zipped:
        zipped.writestr("x.npy", header + bytes(100_000))
    if kind < 2:
        return content.getvalue()
    # The sizes too, in the directory at the end.
    data = bytearray(content.getvalue())
    place = data.rindex(b"PK\x01\x02")
    data[place + 24 : place + 28] = struct.pack("<I", min(promised + len(header), 2**32 - 2))
    return bytes(data)


def resized_png(content: bytes, width: int, height: int) -> bytes:
    """A PNG file that claims another size, with a right checksum."""
    head = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
