"""The lock of a run's folder: one training at a time writes to it.

The lock is the operating system's, on an open file. It ends with the process that has it, whatever
ends the process. What the file says is only for the message that refuses a second training.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import sys
import time
from pathlib import Path

from vae_fast.training.errors import UserError
from vae_fast.training.reading import is_whole, parse_json, read_bytes

NAME = ".lock"
_LONGEST = 4096  # bytes of a lock's file
_TRIES = 100

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        # Nobody else can read what is locked there, so that is a byte far behind the text.
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        """Whether the file is locked now; OSError where the file system has no locks."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class RunLock:
    """While entered, no other training has the folder ``path``.

    A forked process has the open file too, and would keep the lock when this process is killed. So
    it closes the file at once. A process that runs another program never gets it.

    Args:
        path: the folder.
        make: make it where there is none, with its parents. What was made and is still empty at
            the end is removed again.

    Raises:
        UserError: another training has the folder; says which. Or the folder cannot be made.
    """

    def __init__(self, path: Path, make: bool) -> None:
        self.path, self.make = path, make
        self.file = path / NAME
        self._descriptor: int | None = None
        self._made: list[Path] = []
        self._pid = os.getpid()

    def __enter__(self) -> RunLock:
        self._pid = os.getpid()
        try:
            self._acquire()
        except BaseException:
            self._remove_made()
            raise
        return self

    def _make_folder(self) -> None:
        missing = [each for each in (self.path, *self.path.parents) if not each.exists()]
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                self._made.append(folder)
        if not stat.S_ISDIR(os.stat(self.path).st_mode):
            raise UserError(f"--out must be a folder; got the file {self.path}")

    def _acquire(self) -> None:
        gone: OSError | None = None
        for _ in range(_TRIES):
            try:
                if self.make:
                    self._make_folder()
                elif not self.path.is_dir():
                    return  # there is nothing to write to, as reading the run will say
            except FileNotFoundError as error:
                gone = error  # another training has removed the folder that it made, perhaps
                continue
            except OSError as error:
                raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
            try:
                # A link might lead to somebody's file, which would be written to.
                flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
                descriptor = os.open(self.file, flags, 0o666)
            except FileNotFoundError as error:
                gone = error
                continue
            except OSError as error:
                return self._warn(error)
            try:
                if not _try_lock(descriptor):
                    raise UserError(
                        f"{self.path} is in use: {holder(self.file)} trains in it; wait until that "
                        "has ended, or give another --out"
                    )
                # Who had the lock removed the file, perhaps after this process had opened it.
                current = sys.platform == "win32" or self._is_current(descriptor)
            except OSError as error:
                os.close(descriptor)
                return self._warn(error)
            except BaseException:
                os.close(descriptor)
                raise
            if current:
                self._descriptor = descriptor
                _held.append(self)
                return self._say_who()
            os.close(descriptor)
        reason = "others keep taking it" if gone is None else gone.strerror
        raise UserError(f"cannot write {self.path}: {reason}")

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(self.file), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _say_who(self) -> None:
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        assert self._descriptor is not None
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the text
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, json.dumps(who).encode())

    def _warn(self, error: OSError) -> None:
        print(
            f"vae-fast: warning: {self.path} cannot be locked ({error.strerror or error}): a "
            "second training in it would not be refused",
            file=sys.stderr,
            flush=True,
        )

    def __exit__(self, *exception: object) -> None:
        if self._pid != os.getpid():
            return  # a forked process: the lock is its parent's
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _held.remove(self)
            # Removed before it is let go: afterwards the file may be another's lock. Windows
            # removes no open file, and none that another has opened.
            if sys.platform != "win32" and self._is_current(descriptor):
                with contextlib.suppress(OSError):
                    self.file.unlink()
            os.close(descriptor)
            if sys.platform == "win32":
                with contextlib.suppress(OSError):
                    self.file.unlink()
        self._remove_made()

    def _remove_made(self) -> None:
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()
        self._made.clear()

    def _forget(self) -> None:
        """In a forked process: the lock is its parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


_held: list[RunLock] = []


def _forget_all() -> None:
    for lock in _held:
        lock._forget()
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_all)


def holder(file: Path, patience: int = 10) -> str:
    """Who has the lock, by what ``file`` says; it is read up to ``patience`` times more."""
    for number in range(1 + patience):
        if number:
            time.sleep(0.05)  # it may have the lock and not have written yet
        try:
            who = parse_json(file, read_bytes(file, _LONGEST))
        except (UserError, FileNotFoundError):
            continue
        if isinstance(who, dict) and is_whole(who.get("pid"), 1, 2**32):
            host, since = (str(who.get(name)) for name in ("host", "since"))
            if all(text.isprintable() and len(text) <= 300 for text in (host, since)):
                return f"process {who['pid']} on {host}, since {since},"
        break
    return "another process"
