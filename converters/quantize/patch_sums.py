"""The covariance of what weights are multiplied with, gathered over a stream of patches. Pure NumPy.

Weights and patches are seen alike: as rows [groups, outputs, columns] and patches [patches, groups, columns], where the
outputs of a group read the same columns. A convolution has as many groups as it has, a depthwise one a group for each
input channel, a fully connected layer one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.quantize.compensated import MOST_COLUMNS
from converters.quantize.shrinkage import shrunk

__all__ = ["PATCHES", "PatchSums"]

PATCHES = 6144  # in all; more than the columns of one part, from as many samples as there are
FLUSH = 512


@dataclass(slots=True)
class PatchSums:
    """Sums over patches, from which means and covariances follow."""

    waiting: list[np.ndarray] = field(default_factory=list)
    count: int = 0
    sums: np.ndarray | None = None
    squares: list[np.ndarray] = field(default_factory=list)

    def add(self, patches: np.ndarray) -> None:
        """Take in [patches, groups, columns]."""
        self.waiting.append(patches)
        if sum(map(len, self.waiting)) >= FLUSH:
            self._flush()

    def covariances(self) -> tuple[np.ndarray, ...]:
        """Covariance [groups, columns, columns] of each part of the columns, with as much trust as the patches earn."""
        self._flush()
        assert self.sums is not None, "no patch was seen"
        means = np.array_split(self.sums / self.count, len(self.squares), axis=1)
        return tuple(
            shrunk(square / self.count - mean[:, :, None] * mean[:, None, :], self.count)
            for square, mean in zip(self.squares, means, strict=True)
        )

    def _flush(self) -> None:
        if not self.waiting:
            return
        found = np.concatenate(self.waiting).astype(np.float64)
        self.waiting = []
        self.count += len(found)
        parts = np.array_split(found, -(-found.shape[2] // MOST_COLUMNS), axis=2)
        squares = [self._products(part) for part in parts]
        self.sums = found.sum(axis=0) if self.sums is None else self.sums + found.sum(axis=0)
        self.squares = [a + b for a, b in zip(self.squares, squares, strict=True)] if self.squares else squares

    @staticmethod
    def _products(part: np.ndarray) -> Any:
        by_group = part.swapaxes(0, 1)
        return by_group.swapaxes(1, 2) @ by_group
