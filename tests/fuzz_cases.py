"""The readers of the command, each with a maker of mutants, for ``fuzz_readers.py``."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from mutants import (
    ROWS,
    Make,
    bomb,
    checkpoint_mutants,
    made_up_header,
    mutate_bytes,
    mutate_tree,
    npy,
    resized_png,
)
from PIL import Image

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
from vae_fast.training.storage import read_checkpoint

CONFIG = {"latent_dim": 2, "hidden_dims": [4], "epochs": 3, "threads": 1, "batch_size": 16}

Read = Callable[[Path], object]


class Reader(NamedTuple):
    """A kind of file."""

    name: str
    file: str  # what it is called
    make: Make  # a mutant's bytes
    read: Read  # what the command does with the file


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


def checkpoint_reader(folder: Path) -> Reader:
    """As ``evaluate`` and ``sample`` read it."""
    run = RunFolder(folder / "run")
    config, described = run.read_config()

    def read(path: Path) -> None:
        model = load_model(run, config, described)
        assert all(torch.isfinite(each).all() for each in model.parameters())

    return Reader("checkpoint", "run/checkpoint.safetensors", checkpoint_mutants(folder), read)


def state_reader(folder: Path) -> Reader:
    """As ``train --resume`` reads it, which then goes on from what is accepted."""
    run = RunFolder(folder / "run")
    config, described = run.read_config()
    data = load(config.data)
    parts = split(data, config.validation_fraction, config.seed)
    batches = len(parts.train) // 16
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
        load_model(run, config, described)
        state = read_checkpoint(path)
        check_run_state(path, state, module, trainer, batches)
        model = build_model(config, described.event_shape)
        trainer_of(state).fit(
            VAEModule(model, config, 3 * batches),
            datamodule=RunData(parts, 16, config.seed),
            ckpt_path=path,
        )

    return Reader("state", "run/checkpoint.safetensors", checkpoint_mutants(folder), read)


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
