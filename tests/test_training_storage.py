"""Files that are whole or not there, and checkpoints without pickle."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("safetensors")

import safetensors.torch
import torch
from command import same

from vae_fast.training.errors import UserError
from vae_fast.training.storage import atomic_write, read_checkpoint, write_checkpoint


def example() -> dict[str, Any]:
    return {
        "tensors": {
            "a": torch.randn(3, 5).t(),
            "half": torch.randn(7).to(torch.bfloat16),
            "scalar": torch.tensor(2.5, dtype=torch.float64),
            "empty": torch.zeros(0, 4),
            "b.c": torch.arange(3),
            "b": {"c": torch.arange(4)},
        },
        "plain": [1, -2.5, True, None, "text", float("inf"), 0.1 + 0.2, 2**63],
        "keys": {0: {"step": torch.tensor(3.0)}, "0": (1, (2,), [])},
        "empty": {},
    }


def test_round_trip_keeps_values_types_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, example() | {"shared": [torch.ones(2)] * 2})
    torch.manual_seed(20220401)
    expected = example() | {"shared": [torch.ones(2)] * 2}
    write_checkpoint(path, expected)
    assert same(read_checkpoint(path), expected)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_any_safetensors_reader_sees_the_weights_by_name(tmp_path: Path) -> None:
    weight = torch.randn(4, 2)
    write_checkpoint(tmp_path / "c", {"state_dict": {"layer.weight": weight}})
    assert torch.equal(
        safetensors.torch.load_file(tmp_path / "c")["state_dict.layer.weight"], weight
    )


def test_what_is_no_plain_data_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"outer\.inner\.1 .* got Path|got PosixPath"):
        write_checkpoint(tmp_path / "c", {"outer": {"inner": [1, Path("x")]}})
    assert not list(tmp_path.iterdir())


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write_checkpoint(path, {"x": torch.randn(5), "y": [1, "two", {3: 4.0}]})
    content, whole, unnoticed = path.read_bytes(), read_checkpoint(path), 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with contextlib.suppress(UserError):
            # A flip that is not noticed must not matter: white space in the header.
            assert same(read_checkpoint(path), whole), f"byte {place} of {len(content)}"
            unnoticed += 1
    assert unnoticed < 16


def test_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write_checkpoint(path, {"x": torch.randn(5)})
    content = path.read_bytes()
    for length in (0, 4, 8, 20, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged or no checkpoint"):
            read_checkpoint(path)


def test_pickle_files_are_not_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Trap()}, tmp_path / "c")
    with pytest.raises(UserError, match="damaged or no checkpoint"):
        read_checkpoint(tmp_path / "c")
    assert not (tmp_path / "ran").exists()


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Lets no file grow beyond ``room`` bytes; the error is that of the operating system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    with full_disk(4096), pytest.raises(UserError, match=f"cannot write {path}: File too large"):
        atomic_write(path, bytes(10_000))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from vae_fast.training.storage import read_checkpoint, write_checkpoint

torch.set_num_threads(1)
path = Path(sys.argv[1])
write_checkpoint(path, {"number": -1, "values": torch.full((200_000,), -1.0)})
random.seed(0)
cut_off = 0
for number in range(25):
    child = os.fork()
    if child == 0:
        while True:
            values = torch.full((200_000,), float(number))
            write_checkpoint(path, {"number": number, "values": values})
    time.sleep(random.uniform(0.001, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = read_checkpoint(path)
    assert found["number"] in range(-1, number + 1)
    assert (found["values"] == found["number"]).all()
    for left in path.parent.glob(".*.tmp"):
        cut_off += 1
        left.unlink()
print(cut_off)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "c")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # Else no kill came while a file was being written, and nothing was tested.
    assert int(done.stdout) >= 3
