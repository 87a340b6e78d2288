"""What can go wrong for reasons that lie outside the program, and what ends a run early."""

from __future__ import annotations

import importlib.util

# The packages of the `train` extra, by the names they are imported under.
EXTRA = ("lightning", "sklearn", "matplotlib", "safetensors", "PIL", "tqdm")


class UserError(Exception):
    """Something that whoever runs the command can put right; its text says what, in one line."""


class Interrupted(Exception):
    """A signal ended the run, after its state was saved; the text says how to go on.

    Args:
        message: the one line to print.
        signal: the signal's number; the exit status is 128 plus it, as in a shell.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def require_extra() -> None:
    """Raise UserError, with the remedy, where a package of the `train` extra is missing."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"this command needs {', '.join(missing)}, which is not installed here: "
            "pip install 'vae_fast[train]'"
        )
