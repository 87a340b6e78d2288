"""Files that claim more than they hold are refused before any memory is taken for it."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")

import numpy as np
import torch
from command import TINY_ARGUMENTS, fails, files
from PIL import Image

from vae_fast.cli import main
from vae_fast.training.data import load
from vae_fast.training.errors import UserError
from vae_fast.training.folder import RunFolder
from vae_fast.training.metrics import read_metrics
from vae_fast.training.storage import read_checkpoint, write_checkpoint

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


METRICS = {
    "another header": ("epoch,steps\n", "its columns must be epoch,step,learning_rate"),
    "a null byte": ("\0\n", "is damaged"),
    "an open quotation": ('1,11,0.1,"-1,-1,1,-1,-1,1\n', "is damaged"),
    "a long field": ("1" * 200_000 + "\n", "is damaged"),
    "too few": ("1,11,0.1\n", "row 1 must have 9 numbers"),
    "too many": ("1,11,0.1,-1,-1,1,-1,-1,1,5\n", "row 1 must have 9 numbers"),
    "an infinite step": ("1,inf,0.1,-1,-1,1,-1,-1,1\n", "row 1 must have 9 numbers"),
    "a step that is none": ("1,nan,0.1,-1,-1,1,-1,-1,1\n", "row 1 must have 9 numbers"),
    "half an epoch": ("1.5,11,0.1,-1,-1,1,-1,-1,1\n", "row 1 must have 9 numbers"),
    "other digits": ("٣,11,0.1,-1,-1,1,-1,-1,1\n", "row 1 must have 9 numbers"),
    "twice": ("1,11,0.1,-1,-1,1,-1,-1,1\n" * 2, "row 2 .* above those of the row before"),
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics(tmp_path: Path, name: str) -> None:
    content, message = METRICS[name]
    header = "" if "header" in name else (
        "epoch,step,learning_rate,train_elbo,train_log_likelihood,train_kl,held_out_elbo,"
        "held_out_log_likelihood,held_out_kl\n"
    )  # fmt: skip
    (tmp_path / "m.csv").write_text(header + content)
    with pytest.raises(UserError, match=rf"m\.csv is damaged: .*{message}|m\.csv {message}"):
        read_metrics(tmp_path / "m.csv")


def test_metrics_of_a_run_that_diverged_are_read(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "epoch,step,learning_rate,train_elbo,train_log_likelihood,train_kl,held_out_elbo,"
        "held_out_log_likelihood,held_out_kl\n1,11,0.1,nan,-inf,inf,-1e300,-1,1e-05\n2,22"
    )
    (row,) = read_metrics(tmp_path / "m.csv")
    assert (row["epoch"], row["step"], row["held_out_kl"]) == (1, 11, 1e-5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("made")
    assert main(["train", f"--out={folder}", *TINY_ARGUMENTS]) == 0
    return files(folder)


@pytest.fixture
def run(tmp_path: Path, made: dict[str, bytes]) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return folder


CONFIGS = {
    '"learning_rate": 1e999': "--learning-rate must be a number .* got inf",
    f'"learning_rate": {10**400}': "--learning-rate must be a number .* got 1000",
    '"learning_rate": NaN': "it has NaN, which is no number of JSON",
    '"hidden_dims": [1000000, 1000000]': "does not belong to",
    f'"hidden_dims": {[1] * 1001}': "at most 1000 widths; got 1001",
    f'"hidden_dims": {"[" * 30 + "]" * 30}': "at most 20 levels of lists and objects; got",
    f'"hidden_dims": {"[" * 100_000}': "is damaged: it is nested too deeply",
    '"data": "\\ud800"': "--data must name a data set or a path",
    '"objective": []': "--objective must be one of",
    f'"event_shape": [{10**6}, {10**6}]': "event_shape must be .* product",
    '"rows": true': "rows must be a whole number",
    '"limits": [0.0, 1e300]': "limits must be two numbers",
    '"sha256": "x"': "sha256 must be 64 hexadecimal digits",
}


@pytest.mark.parametrize("entry", CONFIGS, ids=lambda entry: entry[:30])
def test_configs(run: Path, capsys: Capture, entry: str) -> None:
    name = entry.split('"')[1]
    content = json.loads((run / "config.json").read_text())
    part = content["config"] if name in content["config"] else content["data"]
    part[name] = "HERE"
    text = json.dumps(content).replace(f'"{name}": "HERE"', entry)
    (run / "config.json").write_text(text)
    for arguments in (("evaluate", str(run)), ("sample", str(run), "--out=/nowhere/x.png")):
        with little_memory(64 << 20):
            said = fails(capsys, *arguments)
        assert "config.json" in said and len(said) < 1000
        assert re.search(CONFIGS[entry], said), said


def change(run: Path, edit: Any) -> None:
    """Write the run's checkpoint anew, with a right checksum."""
    path = run / "checkpoint.safetensors"
    checkpoint = read_checkpoint(path)
    edit(checkpoint)
    write_checkpoint(path, checkpoint)


WEIGHT = "model.encoder.hidden.1.weight"


def edits() -> dict[str, tuple[Any, str]]:
    def wider(c: Any) -> None:
        c["state_dict"][WEIGHT] = torch.zeros(17, 64)

    def whole(c: Any) -> None:
        c["state_dict"][WEIGHT] = c["state_dict"][WEIGHT].int()

    def missing(c: Any) -> None:
        del c["state_dict"][WEIGHT]

    def more(c: Any) -> None:
        c["state_dict"] |= {f"w{number}": torch.zeros(1) for number in range(5)}

    def infinite(c: Any) -> None:
        c["state_dict"][WEIGHT][0, 0] = float("inf")

    def none(c: Any) -> None:
        del c["state_dict"]

    return {
        "wider": (wider, rf"config\.json: {WEIGHT} must be float32 of shape \(16, 64\); got "
                         r"float32 of shape \(17, 64\)$"),
        "whole": (whole, rf"{WEIGHT} must be float32 .*; got int32 of shape \(16, 64\)"),
        "missing": (missing, rf"{WEIGHT} must be float32 of shape \(16, 64\); it is missing"),
        "more": (more, "w0 is none of the model's, w1 .*, w2 .*, and 2 more"),
        "infinite": (infinite, rf"must have finite weights; {WEIGHT} has others"),
        "none": (none, "must have weights"),
    }  # fmt: skip


@pytest.mark.parametrize("name", edits())
def test_weights_that_do_not_fit(run: Path, capsys: Capture, name: str) -> None:
    edit, message = edits()[name]
    change(run, edit)
    before = files(run)
    for arguments in (
        ("evaluate", str(run)),
        ("sample", str(run), "--out=/nowhere/x.png"),
        ("train", "--resume", "--epochs=4", f"--out={run}"),
    ):
        text = fails(capsys, *arguments)
        assert "checkpoint.safetensors" in text
        assert re.search(message, text.rstrip()), text
    assert files(run) == before


def state_edits() -> dict[str, tuple[Any, str]]:
    def moment(c: Any) -> None:
        c["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(17, 64)

    def weight(c: Any) -> None:
        c["optimizer_states"][0]["state"][99] = {}

    def option(c: Any) -> None:
        c["optimizer_states"][0]["param_groups"][0]["betas"] = "x"

    def schedule(c: Any) -> None:
        c["lr_schedulers"][0]["optimizer"] = 5

    def position(c: Any) -> None:
        c["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["position"] = -1

    def epochs(c: Any) -> None:
        c["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"] = "2"

    def batches(c: Any) -> None:
        c["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] = 1.5

    def version(c: Any) -> None:
        c["pytorch-lightning_version"] = "x.y"

    def sums(c: Any) -> None:
        c["sums"] = torch.zeros(4)

    return {
        "moment": (moment, "moments of weight 0 must have its shape"),
        "weight": (weight, "the optimiser must know its weights; got 99"),
        "option": (option, "the optimiser's betas must be .*; got x"),
        "schedule": (schedule, "the schedule must have base_lrs"),
        "position": (position, "the position in an epoch must be from 0 to 11"),
        "epochs": (epochs, "does not say how many epochs"),
        "batches": (batches, "batch_progress.total.ready must be a whole number; got 1.5"),
        "version": (version, "the version of Lightning must be 2.0 or later; got x.y"),
        "sums": (sums, r"sums must be three numbers of float64; got float32 of shape \(4,\)"),
    }


@pytest.mark.parametrize("name", state_edits())
def test_states_that_no_training_can_go_on_from(run: Path, capsys: Capture, name: str) -> None:
    edit, message = state_edits()[name]
    change(run, edit)
    text = fails(capsys, "train", "--resume", f"--out={run}")
    assert "checkpoint.safetensors" in text
    assert re.search(message, text.rstrip()), text


def test_a_model_that_gives_no_numbers(tmp_path: Path, run: Path, capsys: Capture) -> None:
    """Weights that are finite, and whose products are not."""

    def huge(c: Any) -> None:
        for value in c["state_dict"].values():
            value.fill_(3e38)

    change(run, huge)
    assert "held-out ELBO of" in fails(capsys, "evaluate", str(run))
    out = f"--out={tmp_path / 's.npy'}"
    assert "values that are not finite" in fails(capsys, "sample", str(run), out)


def test_labels_that_look_like_formulas(tmp_path: Path) -> None:
    labels = np.array(["$\\frac$", "_x", "a\nb", "\x00", "é", "y" * 500] * 5)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((30, 4)), y=labels)
    out = tmp_path / "run"
    options = ["--latent-dim=2", f"--data={tmp_path / 'd.npz'}", f"--out={out}"]
    assert main(["train", *TINY_ARGUMENTS, *options]) == 0
    assert (out / "latent_map.png").exists()
