"""Damaged and made-up files for every reader of the command: read, or refused in one line.

    python tests/fuzz_readers.py --mutants 10000 --seed 0 [--reader config]

Each reader gets good files with bits flipped, parts cut, moved, doubled or joined, and values
replaced. It must return, or raise UserError with a text of one line, within a time and a memory.
Anything else is a failure: the file is kept, and the status is 1. The readers are called as the
command calls them, in this process.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from PIL import Image

from vae_fast.cli import one_line
from vae_fast.training.checkpoint import SafetensorsIO
from vae_fast.training.commands import load_model
from vae_fast.training.data import load, split
from vae_fast.training.errors import UserError
from vae_fast.training.figures import curves
from vae_fast.training.folder import RunFolder
from vae_fast.training.loader import RunData
from vae_fast.training.lock import holder
from vae_fast.training.machine import quiet_lightning
from vae_fast.training.metrics import COLUMNS, read_metrics
from vae_fast.training.module import VAEModule, build_model
from vae_fast.training.run import train
from vae_fast.training.state import check_run_state
from vae_fast.training.storage import read_checkpoint, write_checkpoint

SECONDS = 2.0  # of processor time, for a mutant
ROOM = 1 << 30  # bytes that a reader may take, beyond what the process has
CONFIG = {"latent_dim": 2, "hidden_dims": [4], "epochs": 3, "threads": 1, "batch_size": 16}
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


Make = Callable[[random.Random], bytes]
Read = Callable[[Path], object]


class Reader(NamedTuple):
    """A kind of file."""

    name: str
    file: str  # what it is called
    make: Make  # a mutant's bytes
    read: Read  # what the command does with the file


# A config, a lock: JSON.


def example_folder(folder: Path) -> None:
    """A run of a small model, trained for two epochs of three."""
    np.save(folder / "rows.npy", ROWS)
    options: dict[str, Any] = {**CONFIG, "hidden_dims": (4,), "epochs": 2}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train({**options, "data": str(folder / "rows.npy")}, folder / "run")


def config_reader(folder: Path) -> Reader:
    run = RunFolder(folder / "run")
    good = run.config.read_bytes()
    tree = json.loads(good)
    others = [good, run.metrics.read_bytes(), json.dumps(tree, indent=None).encode()]

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.5:
            return mutate_bytes(chance, chance.choice((others[0], others[2])), others)
        return json.dumps(mutate_tree(chance, tree)).encode(errors="surrogatepass")

    def read(path: Path) -> None:
        config, described = run.read_config()
        model = load_model(run, config, described)
        assert all(torch.isfinite(each).all() for each in model.parameters())
        with torch.no_grad():
            assert model.sample(2, seed=config.seed).shape == (2, *described.event_shape)

    return Reader("config", "run/config.json", make, read)


def lock_reader(folder: Path) -> Reader:
    tree = {"pid": 4711, "host": "machine", "since": "2026-11-25 10:31:02 +0000"}
    good = json.dumps(tree).encode()

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.5:
            return mutate_bytes(chance, good, [good])
        return json.dumps(mutate_tree(chance, tree)).encode(errors="surrogatepass")

    def read(path: Path) -> None:
        text = holder(path, patience=0)
        assert text.isprintable() and len(text) < 1000
        if text == "another process":
            raise UserError(text)

    return Reader("lock", "lock", make, read)


def metrics_reader(folder: Path) -> Reader:
    run = RunFolder(folder / "run")
    good = run.metrics.read_bytes()
    long = good + b"".join(
        f"{k},{9 * k},0.1,{-k / 7},{-k / 9},1.5,{-k},{-k},inf\n".encode() for k in range(3, 40)
    )
    rows = [line.split(",") for line in long.decode().splitlines()]
    drawn = 0

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.6:
            return mutate_bytes(chance, chance.choice((good, long)), [good, long])
        changed = copy.deepcopy(rows)
        for _ in range(chance.choice((1, 2, 5))):
            row = chance.choice(changed)
            row[chance.randrange(len(row))] = chance.choice(
                ("inf", "nan", "-1", "0", "1e400", "1e308", "-1e308", "1e15", "2.5", "x", "", "٣",
                 '"', "1_0", "9" * 500, "1e-400", '"1\n"', " 1 ", "-0.0")
            )  # fmt: skip
        return "\n".join(",".join(row) for row in changed).encode() + b"\n"

    def read(path: Path) -> None:
        nonlocal drawn
        found = read_metrics(path)
        assert all(set(row) == set(COLUMNS) and isinstance(row["step"], int) for row in found)
        drawn += 1
        if drawn % 20 == 1:  # a picture takes a while
            assert curves(found, -10.0).startswith(b"\x89PNG")

    return Reader("metrics", "run/metrics.csv", make, read)


# A checkpoint: safetensors with JSON.


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
    good = RunFolder(folder / "run").checkpoint.read_bytes()
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


def checkpoint_reader(folder: Path) -> Reader:
    """As ``evaluate`` and ``sample`` read it."""
    run = RunFolder(folder / "run")
    config, described = run.read_config()

    def read(path: Path) -> None:
        model = load_model(run, config, described)
        assert all(torch.isfinite(each).all() for each in model.parameters())

    return Reader("checkpoint", "run/checkpoint.safetensors", checkpoint_mutants(folder), read)


def state_reader(folder: Path) -> Reader:
    """As ``train --resume`` reads it, which then goes on from each twentieth that is accepted."""
    run = RunFolder(folder / "run")
    config, described = run.read_config()
    data = load(config.data)
    parts = split(data, config.validation_fraction, config.seed)
    batches = len(parts.train) // 16
    accepted = 0
    quiet_lightning()

    def trainer_of(state: dict[str, Any]) -> Trainer:
        return Trainer(
            accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            use_distributed_sampler=False, plugins=[SafetensorsIO(state)],
        )  # fmt: skip

    module = VAEModule(build_model(config, described.event_shape), config, 3 * batches)
    trainer = trainer_of({})

    def read(path: Path) -> None:
        nonlocal accepted
        load_model(run, config, described)
        state = read_checkpoint(path)
        check_run_state(path, state, module, trainer, batches)
        accepted += 1
        if accepted % 20 == 1:
            model = build_model(config, described.event_shape)
            trainer_of(state).fit(
                VAEModule(model, config, 3 * batches),
                datamodule=RunData(parts, 16, config.seed),
                ckpt_path=path,
            )

    return Reader("state", "run/checkpoint.safetensors", checkpoint_mutants(folder), read)


# Arrays.


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


def npy_reader(folder: Path) -> Reader:
    arrays = [ROWS, ROWS.astype(np.float64), (ROWS * 255).astype(np.uint8), ROWS > 0.5,
              np.asfortranarray(ROWS), ROWS.astype(np.longdouble), (ROWS * 9).astype(">i4"),
              ROWS.astype(np.float16)]  # fmt: skip
    goods = [npy(array) for array in arrays] + [npy(ROWS, version=(2, 0))]

    def make(chance: random.Random) -> bytes:
        if chance.random() < 0.3:
            return made_up_header(chance)
        return mutate_bytes(chance, chance.choice(goods), goods)

    return Reader("npy", "fuzz.npy", make, check_rows_of)


def check_rows_of(path: Path) -> None:
    data = load(str(path))
    assert data.rows.dtype == torch.float32 and torch.isfinite(data.rows).all()
    assert 2 <= data.rows.dim() <= 4 and data.rows.numel() > 0
    if data.labels is not None:
        assert data.labels.shape == (len(data.rows),)
        for label in np.unique(data.labels):
            str(label).encode()


def npz_reader(folder: Path) -> Reader:
    labels = np.array(["a", "b", "$x", "_d"] * 5)
    goods = []
    for pack in (np.savez, np.savez_compressed):
        for more in ({}, {"y": labels}, {"labels": np.arange(20.0)}):
            content = io.BytesIO()
            pack(content, x=ROWS, **more)
            goods.append(content.getvalue())

    def make(chance: random.Random) -> bytes:
        kind = chance.random()
        if kind < 0.5:
            return mutate_bytes(chance, chance.choice(goods), goods)
        if kind < 0.6:
            return bomb(chance.choice((10**9, 2**40, 2**62)), chance.randrange(4))
        # A whole zip file around anything.
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name in chance.sample(("x", "y", "labels", "data", "z", "", "x.npy"), 2):
                member = (
                    made_up_header(chance)
                    if chance.random() < 0.5
                    else mutate_bytes(chance, npy(chance.choice((ROWS, labels))), [npy(labels)])
                )
                archive.writestr(
                    f"{name}.npy",
                    member,
                    chance.choice((0, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)),
                )
        return content.getvalue()

    return Reader("npz", "fuzz.npz", make, check_rows_of)


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


# Images.


def image_reader(folder: Path) -> Reader:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    goods: list[tuple[str, bytes]] = []
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"):
        image = (
            Image.fromarray(pixels[:, :, :2].copy().view(np.uint16)[:, :, 0])
            if mode == "I;16"
            else Image.fromarray(pixels, "RGBA").convert(mode)
        )
        for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
            content = io.BytesIO()
            try:
                image.save(content, kind)
            except (OSError, KeyError, ValueError):
                continue  # the format has no such mode
            goods.append((kind, content.getvalue()))
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        content = io.BytesIO()
        Image.fromarray(pixels, "RGBA").convert("RGB").save(
            content, "TIFF", compression=compression
        )
        goods.append(("TIFF", content.getvalue()))
    contents = [content for _, content in goods]

    def make(chance: random.Random) -> bytes:
        kind, good = chance.choice(goods)
        if kind == "PNG" and chance.random() < 0.3:
            size = [chance.choice((5, 0, 1, 10**5, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
            return resized_png(good, *size)
        return mutate_bytes(chance, good, contents)

    return Reader("images", "images/fuzz.png", make, check_rows_of_folder)


def check_rows_of_folder(path: Path) -> None:
    check_rows_of(path.parent)


def resized_png(content: bytes, width: int, height: int) -> bytes:
    """A PNG file that claims another size, with a right checksum."""
    head = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]


READERS: dict[str, Callable[[Path], Reader]] = {
    "config": config_reader,
    "metrics": metrics_reader,
    "lock": lock_reader,
    "checkpoint": checkpoint_reader,
    "state": state_reader,
    "npy": npy_reader,
    "npz": npz_reader,
    "images": image_reader,
}


class TookTooLong(BaseException):
    """A mutant took more than its seconds."""


@contextmanager
def limits(heard: IO[bytes]) -> Iterator[None]:
    """Time of a mutant, by a signal, and memory, by the operating system.

    What is written to stderr comes to the file ``heard``, C code's too.
    """

    def late(number: int, frame: object) -> None:
        raise TookTooLong

    before = resource.getrlimit(resource.RLIMIT_AS)
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(heard.fileno(), 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    handler = signal.signal(signal.SIGVTALRM, late)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)
        os.dup2(stderr, 2)
        os.close(stderr)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@dataclass
class Result:
    """What became of a reader's mutants."""

    accepted: int = 0
    refused: int = 0
    failures: list[tuple[int, bytes, str]] = field(default_factory=list)


def attempt(reader: Reader, path: Path, content: bytes) -> str | None:
    """ "" where a mutant is accepted, None where it is refused, else what is wrong."""
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        reader.read(path)
        return ""
    except UserError as error:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        text = one_line(error)
        if not text or "\n" in text or not text.isprintable():
            return f"not one line: {text!r}"
        if any(isinstance(each, MemoryError) for each in causes(error)):
            return f"too much memory: {text}"
        return None
    except TookTooLong:
        return f"more than {SECONDS} s"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def fuzz(folder: Path, name: str, mutants: int, seed: int, most_failures: int = 5) -> Result:
    """Give ``mutants`` files to the reader ``name``; the same ones for the same seed."""
    reader = READERS[name](folder)
    path = folder / reader.file
    path.parent.mkdir(exist_ok=True)
    good = path.read_bytes() if path.exists() else None
    result = Result()
    silence = 0
    with tempfile.TemporaryFile() as heard, warnings.catch_warnings(), limits(heard):
        warnings.simplefilter("ignore")
        for number in range(mutants):
            # Of its own number alone: one mutant can be made again without those before.
            content = reader.make(random.Random(f"{seed} {name} {number}"))
            wrong = attempt(reader, path, content)
            if (said := os.fstat(heard.fileno()).st_size) > silence:
                wrong = f"wrote {said - silence} bytes to stderr besides: {wrong}"
                silence = said
            if wrong is None:
                result.refused += 1
            elif wrong == "":
                result.accepted += 1
            else:
                result.failures.append((number, content, wrong))
                if len(result.failures) == most_failures:
                    break
    if good is None:
        path.unlink()
    else:
        path.write_bytes(good)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=READERS, action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    status = 0
    try:
        example_folder(folder)
        for name in arguments.reader or READERS:
            result = fuzz(folder, name, arguments.mutants, arguments.seed)
            print(
                f"{name:<10} {result.accepted} accepted, {result.refused} refused, "
                f"{len(result.failures)} failed",
                flush=True,
            )
            for number, content, wrong in result.failures:
                kept = Path(f"mutant-{name}-{arguments.seed}-{number}")
                kept.write_bytes(content)
                print(f"mutant {number}, kept as {kept}:\n{wrong}", flush=True)
                status = 1
    finally:
        shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
