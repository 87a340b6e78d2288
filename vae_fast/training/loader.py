"""Batches of rows in memory, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from vae_fast.training.data import Split
from vae_fast.training.seeds import SHUFFLE, derive, permutation

# Rows and the index of the first in the batch of all processes: where their noise begins.
Batch = tuple[Tensor, int]


class TrainLoader:
    """Every epoch's rows in a new order, cut into equal batches; each process gets its part.

    Lightning saves ``state_dict`` in the middle of an epoch and loads it before the next pass, so
    that a resumed epoch goes on with the batch that came next. Rows that do not fill a batch wait
    for another epoch's order: with equal batches the mean of the processes' gradients is the
    gradient of the whole batch's mean.
    """

    def __init__(self, rows: Tensor, batch_size: int, seed: int, rank: int, world: int) -> None:
        self.rows = rows
        self.local_size = batch_size // world
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = 0
        self.position = 0  # batches of this epoch already handed out
        self._resume_at = 0

    @property
    def sampler(self) -> TrainLoader:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows) // (self.local_size * self.world)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: this runs at the first batch, after Lightning has set epoch and state.
        self.position, self._resume_at = self._resume_at, 0
        order = torch.from_numpy(
            permutation(len(self.rows), derive(self.seed, SHUFFLE, self.epoch))
        )
        offset = self.rank * self.local_size
        while self.position < len(self):
            start = self.position * self.local_size * self.world + offset
            self.position += 1
            yield self.rows[order[start : start + self.local_size]], offset

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._resume_at = state["position"]


class HeldOutLoader:
    """The held-out rows in their order; each process gets a run of them, in as many batches."""

    def __init__(self, rows: Tensor, batch_size: int, rank: int, world: int) -> None:
        counts = [len(part) for part in torch.tensor_split(torch.empty(len(rows)), world)]
        self.start = sum(counts[:rank])
        self.rows = rows[self.start : self.start + counts[rank]]
        self.batches = -(-max(counts) // batch_size)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        start = self.start
        for rows in torch.tensor_split(self.rows, self.batches):
            yield rows, start
            start += len(rows)


class RunData(LightningDataModule):
    """The loaders of a run, made in each process once its rank is known."""

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        super().__init__()
        self.split, self.batch_size, self.seed = split, batch_size, seed

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        assert trainer is not None
        return trainer.global_rank, trainer.world_size

    def train_dataloader(self) -> TrainLoader:
        return TrainLoader(self.split.train, self.batch_size, self.seed, *self._place())

    def val_dataloader(self) -> HeldOutLoader:
        return HeldOutLoader(self.split.held_out, self.batch_size, *self._place())
