"""The folder of a run: what lies in it, and that no run is lost."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vae_fast.training.config import RunConfig
from vae_fast.training.data import Description
from vae_fast.training.errors import UserError
from vae_fast.training.reading import parse_json, read_bytes
from vae_fast.training.storage import atomic_write

FORMAT = "vae-fast run 1"
LONGEST_CONFIG = 2**20  # bytes; a usual one has a thousand
FIGURES = ("curves.png", "reconstructions.png", "samples.png", "latent_map.png")


def to_json(values: Mapping[str, object]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    def figure(self, name: str) -> Path:
        return self.path / name

    def _files(self) -> list[Path]:
        # The config last: as long as it is there, the folder counts as a run's.
        figures = [self.figure(name) for name in FIGURES]
        return [*figures, self.results, self.metrics, self.checkpoint, self.config]

    def check_free(self, overwrite: bool) -> None:
        """UserError where files would be lost that ``overwrite`` does not give up."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out must be a folder; got the file {self.path}")
        taken = [file.name for file in self._files() if file.exists()]
        if self.config.name in taken and not overwrite:
            raise UserError(
                f"{self.path} already has a run: continue it with --resume, replace it with "
                "--overwrite, or give another --out"
            )
        if taken and self.config.name not in taken:
            raise UserError(
                f"{self.path} is no run's folder but has {', '.join(taken)}, which a run would "
                "replace: give another --out"
            )

    def start(self, config: RunConfig, data: Description) -> None:
        """Make the folder this run's: what an earlier run left goes, the config comes."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for file in self._files():
                file.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.write_config(config, data)

    def write_config(self, config: RunConfig, data: Description) -> None:
        """Write the config; a killed run's half-written files go."""
        for file in self._files():
            for left in self.path.glob(f".{file.name}.*.tmp"):
                with contextlib.suppress(OSError):
                    left.unlink()
        content = {"format": FORMAT, "config": config.to_json(), "data": asdict(data)}
        atomic_write(self.config, to_json(content))

    def read_config(self) -> tuple[RunConfig, Description]:
        """The run's config and the description of its data; UserError where there is no run."""
        if not self.path.is_dir():
            raise UserError(f"there is no run folder {self.path}")
        try:
            content = parse_json(self.config, read_bytes(self.config, LONGEST_CONFIG))
        except FileNotFoundError as error:
            raise UserError(f"{self.path} is no run's folder: it has no config.json") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{self.config} is damaged: it must be of format {FORMAT!r}")
        try:
            return (
                RunConfig.from_json(content.get("config")),
                Description.from_json(content.get("data")),
            )
        except UserError as error:
            raise UserError(f"{self.config} is damaged: {error}") from error
