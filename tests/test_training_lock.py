"""One training at a time in a run's folder: who comes second is told of the first.

That the processes of one run do not refuse each other is seen in test_training_noise.py.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("lightning")

from command import COMMAND, TINY_ARGUMENTS, fails, files, start

from vae_fast.cli import main
from vae_fast.training import lock
from vae_fast.training.errors import UserError
from vae_fast.training.lock import RunLock

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills and forks processes")


def wait_for(what: str, condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A run's folder, and a process that trains in it until it is killed."""
    folder = tmp_path_factory.mktemp("running") / "run"
    assert main(["train", f"--out={folder}", *TINY_ARGUMENTS]) == 0
    rows = (folder / "metrics.csv").read_text().count("\n")
    process = start([*COMMAND, "train", "--resume", "--epochs=1000000", f"--out={folder}"])
    with process:
        wait_for(
            "an epoch more", lambda: (folder / "metrics.csv").read_text().count("\n") > rows + 1
        )
        yield folder, process
        process.kill()


@pytest.mark.parametrize("more", [(), ("--resume",), ("--overwrite",)], ids=str)
def test_a_second_training_is_refused(
    running: tuple[Path, subprocess.Popen[str]], capsys: Capture, more: tuple[str, ...]
) -> None:
    folder, process = running
    kept = {name: files(folder)[name] for name in ("config.json", "checkpoint.safetensors")}
    text = fails(capsys, "train", f"--out={folder}", *TINY_ARGUMENTS, *more)
    host = re.escape(socket.gethostname())
    assert re.fullmatch(
        rf"{folder} is in use: process {process.pid} on {host}, since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}, trains in it; wait until that has ended, or "
        r"give another --out\n",
        text,
    )
    assert process.poll() is None
    assert {name: files(folder)[name] for name in kept} == kept


def test_readers_are_not_kept_out(
    running: tuple[Path, subprocess.Popen[str]], tmp_path: Path
) -> None:
    folder, process = running
    assert main(["evaluate", str(folder), "--num-samples=1"]) == 0
    assert main(["sample", str(folder), "-n=3", f"--out={tmp_path / 's.npy'}"]) == 0
    assert process.poll() is None


def test_a_killed_training_leaves_no_lock(running: tuple[Path, subprocess.Popen[str]]) -> None:
    folder, process = running
    process.kill()
    process.wait()
    assert (folder / lock.NAME).exists()  # its text, and nothing that holds anybody up
    assert main(["train", "--resume", "--epochs=4", f"--out={folder}"]) == 0
    assert not (folder / lock.NAME).exists()
    assert main(["train", "--overwrite", f"--out={folder}", *TINY_ARGUMENTS]) == 0


WITH_A_CHILD = """
import os, sys, time
from pathlib import Path
from vae_fast.training.lock import RunLock

with RunLock(Path(sys.argv[1]), make=True):
    child = os.fork()
    if child == 0:
        os.close(1)
        time.sleep(300)
        os._exit(0)
    print(child, flush=True)
    time.sleep(300)
"""


def test_a_forked_process_that_survives_has_no_lock(tmp_path: Path) -> None:
    """As a worker that reads data does, whose parent is killed."""
    with start([sys.executable, "-W", "ignore", "-c", WITH_A_CHILD, str(tmp_path)]) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            with pytest.raises(UserError, match=f"process {process.pid} on"):
                RunLock(tmp_path, make=False).__enter__()
            process.kill()
            process.wait()
            with RunLock(tmp_path, make=False):
                os.kill(child, 0)  # it is still there
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def test_a_forked_process_that_ends_takes_no_lock_along(tmp_path: Path) -> None:
    """Its way out leads through the end of the ``with`` block."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom vae_fast.training.lock import RunLock\n"
        "path = Path(sys.argv[1]) / 'made'\n"
        "with RunLock(path, make=True):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        assert os.waitpid(child, 0)[1] == 0\n"
        "        try:\n"
        "            RunLock(path, make=False).__enter__()\n"
        "        except Exception as error:\n"
        "            print(error)\n"
        "if child:\n"
        "    assert not path.exists()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "is in use" in done.stdout


TAKE_AND_LET_GO = """
import os, sys
from pathlib import Path
from vae_fast.training.errors import UserError
from vae_fast.training.lock import RunLock

folder, taken = Path(sys.argv[1]), 0
os.nice(int(sys.argv[2]))
import vae_fast.training.lock as lock
lock.holder = lambda file: "another"
while taken < 150:
    try:
        with RunLock(folder / "a" / "b", make=True):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
            os.unlink(folder / "inside")
            taken += 1
    except UserError as error:
        assert "in use" in str(error), error
"""


def test_never_two_at_a_time(tmp_path: Path) -> None:
    """The file goes with each lock, and so does the folder: nobody locks one that is gone."""
    program = [sys.executable, "-c", TAKE_AND_LET_GO, str(tmp_path)]
    processes = [start([*program, str(number)]) for number in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    # Who made a folder cannot remove it while another has it. Nothing but folders may be left.
    assert {path.name for path in tmp_path.rglob("*")} <= {"a", "b"}


def test_a_lock_that_its_owner_removed_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between this process's opening the file and locking it, the owner ends."""
    first, try_lock = RunLock(tmp_path, make=True), lock._try_lock
    first.__enter__()

    def late(descriptor: int) -> bool:
        monkeypatch.setattr(lock, "_try_lock", try_lock)
        first.__exit__()
        return try_lock(descriptor)

    monkeypatch.setattr(lock, "_try_lock", late)
    with RunLock(tmp_path, make=True):
        assert (tmp_path / lock.NAME).exists()
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            RunLock(tmp_path, make=True).__enter__()


def test_folders_are_made_and_not_left_empty(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a" / "b"
    with RunLock(out, make=True):
        assert (out / lock.NAME).exists()
    assert not (tmp_path / "a").exists()
    with RunLock(out, make=True):
        (out / "file").touch()
    assert [path.name for path in out.iterdir()] == ["file"]
    with RunLock(tmp_path / "none", make=False):
        assert not (tmp_path / "none").exists()
    fails(capsys, "train", f"--out={tmp_path / 'c' / 'd'}", "--data=/nowhere")
    assert not (tmp_path / "c").exists()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    text = fails(capsys, "train", f"--out={tmp_path / 'link'}")
    assert text == f"cannot write {tmp_path / 'link'}: No such file or directory\n"


def test_a_file_system_without_locks(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_try_lock", fail)
    assert main(["train", f"--out={tmp_path}", *TINY_ARGUMENTS]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert lines == [
        f"vae-fast: warning: {tmp_path} cannot be locked (No locks available): a second training "
        "in it would not be refused"
    ]


def test_a_lock_that_leads_elsewhere_is_not_written_to(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / lock.NAME).symlink_to(tmp_path / "mine")
    with RunLock(tmp_path, make=True):
        assert "cannot be locked" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff", b"[" * 3000, b'{"pid": "1"}', b'{"pid": 1e999}', b"x" * 5000,
        b'{"pid": 1, "host": "a\\u001b[2J"}', b'{"pid": 1, "host": [[[]]], "since": "a\\nb"}',
    ],
)  # fmt: skip
def test_a_lock_with_other_text(tmp_path: Path, content: bytes) -> None:
    with RunLock(tmp_path, make=True):
        (tmp_path / lock.NAME).write_bytes(content)
        with pytest.raises(UserError, match="is in use: another process trains in it; wait"):
            RunLock(tmp_path, make=True).__enter__()
