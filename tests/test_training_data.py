"""Data sets: what is read and how it is scaled, what is refused, and the order of the rows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")
import torch
from PIL import Image

from vae_fast.training.data import Description, load, split
from vae_fast.training.errors import UserError
from vae_fast.training.loader import HeldOutLoader, TrainLoader


def saved(path: Path, array: np.ndarray, **more: np.ndarray) -> str:
    if path.suffix == ".npz":
        np.savez(path, x=array, **more)
    else:
        np.save(path, array, allow_pickle=True)
    return str(path)


def test_digits_are_scaled_to_one() -> None:
    data = load("digits")
    assert data.rows.shape == (1797, 8, 8) and data.rows.dtype == torch.float32
    assert data.rows.min() == 0 and data.rows.max() == 1
    assert data.rows.sum().item() == pytest.approx(561718 / 16)
    assert data.labels is not None and list(np.unique(data.labels)) == list(range(10))


def test_8_bit_values_are_scaled_and_floats_are_not(tmp_path: Path) -> None:
    whole = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    assert torch.equal(
        load(saved(tmp_path / "a.npy", whole)).rows, torch.tensor(whole).float() / 255
    )
    real = np.linspace(-3, 200, 24).reshape(4, 6)
    assert torch.equal(
        load(saved(tmp_path / "b.npy", real)).rows, torch.tensor(real, dtype=torch.float32)
    )


@pytest.mark.parametrize("dtype", ["bool", "int64", "float16", ">f4", "uint32"])
def test_other_kinds_of_numbers_become_float32(tmp_path: Path, dtype: str) -> None:
    array = np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
    rows = load(saved(tmp_path / "a.npy", array)).rows
    assert rows.dtype == torch.float32 and rows.tolist() == [[0, 1], [1, 1], [1, 0]]


def test_npz_has_rows_and_labels(tmp_path: Path) -> None:
    labels = np.array(["a", "b", "a", "c"])
    data = load(saved(tmp_path / "a.npz", np.ones((4, 2)), y=labels))
    assert data.rows.shape == (4, 2)
    assert data.labels is not None and data.labels.tolist() == labels.tolist()


def test_channels_come_first(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((5, 6, 7, 3))
    rows = load(saved(tmp_path / "a.npy", array)).rows
    assert np.array_equal(rows.numpy(), array.transpose(0, 3, 1, 2).astype(np.float32))


BAD_ARRAYS = {
    "rank 1": (np.zeros(5), r"\[rows, features\].* got shape \(5,\)"),
    "rank 0": (np.array(1.0), r"got shape \(\)"),
    "rank 5": (np.zeros((2, 1, 1, 1, 1)), "got shape"),
    "no rows": (np.zeros((0, 4)), r"must have rows.* got shape \(0, 4\)"),
    "no features": (np.zeros((4, 0)), "must have rows"),
    "NaN": (np.array([[0.0, 1.0], [2.0, np.nan]]), r"1 NaN or infinite.* nan, at \[1, 1\]"),
    "infinite": (np.array([[0.0, -np.inf], [np.inf, 1]]), r"2 NaN or infinite.* at \[0, 1\]"),
    "float64 beyond float32": (np.array([[0.0, 1e39], [1, 1]]), r"fit float32.* 1e\+39"),
    "int64 beyond float32": (np.array([[0, 2**40], [1, 1]]), f"at most {2**24}.* 0 to {2**40}"),
    "uint64 limit": (np.array([[0, 2**64 - 1]], dtype=np.uint64), "18446744073709551615"),
    "complex": (np.zeros((2, 2), complex), "complex128"),
    "text": (np.array([["a", "b"]]), "values of type <U1"),
    "dates": (np.zeros((2, 2), "M8[s]"), "datetime64"),
    "records": (np.zeros((2, 2), [("a", float)]), "must hold numbers"),
    "objects": (np.array([[{}, {}]], dtype=object), "not loaded"),
    "two rows": (np.zeros((2, 4)), "at least 3 rows.* got 2"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_cannot_be_trained_on_are_refused(tmp_path: Path, name: str) -> None:
    array, message = BAD_ARRAYS[name]
    with pytest.raises(UserError, match=message):
        split(load(saved(tmp_path / "bad.npy", array)), 0.2, 0)


def test_files_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "cut.npy", np.zeros((10, 10)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    np.savez(tmp_path / "cut.npz", x=np.zeros((100, 100)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-200])
    np.savez(tmp_path / "many.npz", a=np.zeros((3, 3)), b=np.zeros((3, 3)))
    np.savez(tmp_path / "objects.npz", x=np.array([[{}]], dtype=object))
    np.savez(tmp_path / "labels.npz", x=np.zeros((3, 3)), y=np.zeros(2))
    (tmp_path / "a.txt").write_text("1 2 3")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(UserError, match=path.name):
            load(str(path))
    with pytest.raises(UserError, match=r"there is no data .*missing\.npy"):
        load(str(tmp_path / "missing.npy"))


def test_a_member_with_flipped_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random((50, 50)))
    content = bytearray(path.read_bytes())
    content[2000:2010] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz.* cannot be read"):
        load(str(path))


def picture(path: Path, mode: str, size: tuple[int, int] = (5, 4)) -> None:
    path.parent.mkdir(exist_ok=True)
    array = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 4))
    Image.fromarray(array.astype(np.uint8), "RGBA").convert(mode).save(path)


def test_folders_of_grey_and_colour_images(tmp_path: Path) -> None:
    for name in ("b.png", "a.bmp"):
        picture(tmp_path / "x" / name, "L")
    picture(tmp_path / "y" / "c.png", "L")
    (tmp_path / "x" / "notes.txt").write_text("no image")
    (tmp_path / "x" / ".hidden.png").write_text("no image either")
    data = load(str(tmp_path))
    assert data.rows.shape == (3, 4, 5)
    assert data.labels is not None and data.labels.tolist() == ["x", "x", "y"]
    with Image.open(tmp_path / "x" / "a.bmp") as image:
        assert np.allclose(data.rows[0].numpy() * 255, np.asarray(image))
    picture(tmp_path / "z.png", "RGB")
    data = load(str(tmp_path))
    assert data.rows.shape == (4, 3, 4, 5) and data.labels is None
    with Image.open(tmp_path / "z.png") as image:
        assert np.allclose(data.rows[3].numpy().transpose(1, 2, 0) * 255, np.asarray(image))


def test_16_bit_images_are_scaled_to_one(tmp_path: Path) -> None:
    array = np.array([[0, 1000], [40000, 65535]], dtype=np.uint16)
    Image.fromarray(array).save(tmp_path / "a.png")
    assert np.allclose(load(str(tmp_path)).rows[0].numpy() * 65535, array)


def test_folders_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must hold images .* got none"):
        load(str(tmp_path))
    picture(tmp_path / "a.png", "L", (5, 4))
    picture(tmp_path / "b.png", "L", (4, 5))
    with pytest.raises(UserError, match=r"5x4 \(a\.png\) and 4x5 \(b\.png\)"):
        load(str(tmp_path))
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"b\.png cannot be read as an image"):
        load(str(tmp_path))


@pytest.mark.parametrize(("fraction", "held"), [(0.2, 359), (1e-9, 1), (0.9, 1617)])
def test_split_takes_every_row_once(fraction: float, held: int) -> None:
    data = load("digits")
    parts = split(data, fraction, seed=3)
    assert len(parts.held_out) == held
    both = torch.cat([parts.train, parts.held_out]).flatten(1)
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, data.rows.flatten(1).tolist()))
    assert not torch.equal(parts.held_out, split(data, fraction, seed=4).held_out)


def test_description_round_trip_and_difference() -> None:
    data = load("digits")
    described = data.describe()
    assert described.limits == (0.0, 1.0)
    assert Description.from_json(asdict(described)) == described
    data.rows[5, 3, 3] += 1e-6
    assert data.describe().sha256 != described.sha256


ROWS = torch.arange(103.0)


def epoch_of(loader: TrainLoader, epoch: int) -> list[torch.Tensor]:
    loader.set_epoch(epoch)
    return [rows for rows, _ in loader]


def test_epochs_have_their_own_order_and_no_row_twice() -> None:
    first, second = (torch.cat(epoch_of(TrainLoader(ROWS, 10, 7, 0, 1), e)) for e in (0, 1))
    assert len(first) == len(first.unique()) == 100
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.cat(epoch_of(TrainLoader(ROWS, 10, 7, 0, 1), 0)))
    assert not torch.equal(first, torch.cat(epoch_of(TrainLoader(ROWS, 10, 8, 0, 1), 0)))


def test_processes_share_each_batch_in_rank_order() -> None:
    whole = epoch_of(TrainLoader(ROWS, 12, 7, 0, 1), 4)
    loaders = [TrainLoader(ROWS, 12, 7, rank, 3) for rank in range(3)]
    parts = [epoch_of(loader, 4) for loader in loaders]
    assert [torch.cat(batch).tolist() for batch in zip(*parts, strict=True)] == [
        batch.tolist() for batch in whole
    ]
    assert [next(iter(loader))[1] for loader in loaders] == [0, 4, 8]


@pytest.mark.parametrize("position", [0, 1, 6, 9])
def test_a_loader_goes_on_from_its_state(position: int) -> None:
    whole = epoch_of(TrainLoader(ROWS, 10, 7, 0, 1), 2)
    loader = TrainLoader(ROWS, 10, 7, 0, 1)
    loader.set_epoch(2)
    batches = iter(loader)
    for _ in range(position):
        next(batches)
    resumed = TrainLoader(ROWS, 10, 7, 0, 1)
    resumed.load_state_dict(loader.state_dict())
    assert len(resumed) == len(loader) == 10
    assert torch.equal(torch.cat(epoch_of(resumed, 2)), torch.cat(whole[position:]))
    assert len(epoch_of(resumed, 3)) == 10


@pytest.mark.parametrize(("rows", "world"), [(103, 1), (103, 4), (2, 3), (9, 2)])
def test_held_out_rows_come_once_with_their_places(rows: int, world: int) -> None:
    loaders = [HeldOutLoader(ROWS[:rows], 8, rank, world) for rank in range(world)]
    assert len({len(loader) for loader in loaders}) == 1
    seen = []
    for loader in loaders:
        for values, start in loader:
            assert values.tolist() == list(range(start, start + len(values)))
            assert len(values) <= 8
            seen += values.tolist()
    assert seen == list(range(rows))
