"""Lightning's checkpoints as one safetensors file, written atomically and read without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import CheckpointIO

from vae_fast.training.storage import read_checkpoint, write_checkpoint


class SafetensorsIO(CheckpointIO):
    """Lightning hands every checkpoint to this; see ``storage`` for the file.

    Args:
        state: the checkpoint that Lightning gets where it asks for one, read and checked by then;
            emptied then, so that its memory is free while the run goes on.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        loaded = dict(self.state)
        self.state.clear()
        return loaded or read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
