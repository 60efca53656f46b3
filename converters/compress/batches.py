"""Mini-batches of an encoded click log: shuffled by seed and epoch, entered at any step, shared out among processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    import torch

__all__ = ["ArrayBatches", "Batches"]

BLOCK_ROWS = 1 << 18


class Batches(Protocol):
    """Where `train` takes its rows from."""

    @property
    def steps(self) -> int:
        """Mini-batches in one epoch."""

    def epoch(self, number: int, *, first_step: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(dense float32 [B, features], ids int64 [B, columns], labels float32 [B]) from `first_step` on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayBatches:
    """Batches of arrays in memory or mapped from disk.

    Rows are shuffled within blocks of 262,144 and blocks among each other, so that a mapped file is read in stretches.
    The last, shorter batch of an epoch is dropped while training (`shuffle`), kept otherwise.

    Attributes:
        dense: float32 [rows, features].
        ids: int32 or int64 [rows, columns].
        labels: [rows], 0 or 1.
        seed: Of the shuffles; an epoch's order depends on it and on the epoch's number alone.
        rank, world: Every `world`-th batch belongs to this process.
    """

    dense: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    batch: int = 2048
    shuffle: bool = True
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not len(self.dense) == len(self.ids) == len(self.labels):
            raise BadInput(f"rows: {len(self.dense)} dense, {len(self.ids)} of ids, {len(self.labels)} labels.")
        if not len(self.labels):
            raise BadInput("click log: no row to take batches from.")
        if self.batch < 1 or not 0 <= self.rank < self.world:
            raise BadInput(f"batches: batch = {self.batch}, rank {self.rank} of {self.world}: cannot be.")
        if self.shuffle and not self._whole:
            raise BadInput(f"batches: {len(self.labels)} rows are too few for {self.world} x {self.batch}.")

    @property
    def _size(self) -> int:
        return min(self.batch, len(self.labels)) if self.world == 1 else self.batch

    @property
    def _whole(self) -> int:
        return len(self.labels) // self._size // self.world

    @property
    def steps(self) -> int:
        """Batches that this process sees in one epoch."""
        if self.shuffle:
            return self._whole
        return -(-len(self.labels) // (self._size * self.world))

    def epoch(self, number: int, *, first_step: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """The batches of one epoch from `first_step` on; see `Batches`."""
        torch = require("torch", extra="run-executorch")
        for step, rows in enumerate(self._rows(number)):
            if step < first_step:
                continue
            # A slice of a mapped file is read-only, which tensors cannot be; chosen rows are a copy already.
            taken = np.array if isinstance(rows, slice) else np.asarray
            yield (
                torch.from_numpy(taken(self.dense[rows], np.float32)),
                torch.from_numpy(taken(self.ids[rows], np.int64)),
                torch.from_numpy(taken(self.labels[rows], np.float32)),
            )

    def _rows(self, number: int) -> Iterator[np.ndarray | slice]:
        size, count = self._size, len(self.labels)
        if not self.shuffle:
            for start in range(self.rank * size, count, size * self.world):
                yield slice(start, min(start + size, count))
            return
        generator = np.random.default_rng([self.seed, number])
        held = np.empty(0, np.int64)
        batch_number = 0
        for block in generator.permutation(-(-count // BLOCK_ROWS)):
            start = int(block) * BLOCK_ROWS
            rows = start + generator.permutation(min(BLOCK_ROWS, count - start))
            held = np.concatenate([held, rows]) if held.size else rows
            while held.size >= size and batch_number < self._whole * self.world:
                if batch_number % self.world == self.rank:
                    yield held[:size]
                held = held[size:]
                batch_number += 1
