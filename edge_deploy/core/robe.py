"""ROBE (Desai et al., arXiv:2108.02191): all embedding tables share one array, read in blocks at hashed places.

Element j of the row of a global id x, with blocks of Z elements in an array of m:

    h = (R3 x + R2 (j div Z) + R1) mod P        slot = h mod (m - Z + 1) + (j mod Z)

as the authors' GPU kernel computes it. Every product stays below 2^63, so that 64-bit integers anywhere give the same
slots; the numbers are part of a trained model and travel with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["PRIME", "RobeHash", "RobeTable", "make_hash"]

PRIME = 2038074743
SEED = 1024  # the authors' own
MOST_IDS = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class RobeHash:
    """Where the elements of rows stand in the shared array.

    Attributes:
        size: Elements of the array, m.
        block: Neighbouring elements that are read together, Z, from 1 to `dim`.
        dim: Width of a row.
        multipliers: R1, R2, R3, each in [0, prime).
    """

    size: int
    block: int
    dim: int
    multipliers: tuple[int, int, int]
    prime: int = PRIME

    def __post_init__(self) -> None:
        problems = []
        if self.dim < 1 or not 1 <= self.block <= self.dim:
            problems.append(f"shared array: block = {self.block}: must be from 1 to the width of a row, {self.dim}.")
        if self.size < self.block or self.size >= MOST_IDS:
            problems.append(f"shared array: {self.size} elements: must be at least a block, and below 2^31.")
        if not 2 <= self.prime < MOST_IDS or not all(0 <= each < self.prime for each in self.multipliers):
            problems.append("shared array: the multipliers must lie in [0, prime), and the prime below 2^31.")
        if problems:
            raise BadInput(*problems)

    @property
    def blocks(self) -> int:
        """Blocks of a row; the last may be cut short."""
        return math.ceil(self.dim / self.block)

    @property
    def places(self) -> int:
        """At how many places a block may begin."""
        return self.size - self.block + 1

    @property
    def shifts(self) -> tuple[int, ...]:
        """R2 b + R1 for each block b."""
        first, second, _ = self.multipliers
        return tuple(second * block + first for block in range(self.blocks))

    def slots(self, ids: np.ndarray) -> np.ndarray:
        """int64 [*ids.shape, dim] in [0, size) of global ids in [0, 2^31)."""
        mixed = np.asarray(ids, np.int64)[..., None] * self.multipliers[2] + np.array(self.shifts, np.int64)
        starts = mixed % self.prime % self.places
        inside = np.arange(self.block)
        found: np.ndarray = (starts[..., None] + inside).reshape(*starts.shape[:-1], -1)[..., : self.dim]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RobeTable:
    """One table among those that share an array.

    Attributes:
        offset: Global id of its first row: the rows of all tables before it.
    """

    hash: RobeHash
    rows: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.offset < 0 or self.offset + self.rows > MOST_IDS:
            raise BadInput(f"shared array: {self.rows} rows from id {self.offset} on: ids must stay below 2^31.")

    def slots(self, ids: np.ndarray) -> np.ndarray:
        """int64 [*ids.shape, dim] of the table's own ids; ids outside it are moved to its first or last row."""
        inside = np.clip(np.asarray(ids, np.int64), 0, self.rows - 1)
        return self.hash.slots(inside + self.offset)


def make_hash(*, size: int, dim: int, block: int, seed: int = SEED) -> RobeHash:
    """A hash with multipliers drawn from `seed`.

    Raises:
        BadInput: The array is smaller than a block, or the block wider than a row.
    """
    drawn = np.random.default_rng(seed).integers(1, PRIME, 3)
    first, second, third = (int(each) for each in drawn)
    return RobeHash(size=size, block=block, dim=dim, multipliers=(first, second, third))
