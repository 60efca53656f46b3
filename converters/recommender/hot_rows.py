"""Hot and cold rows of a table (Yang et al., arXiv:2010.11305): rows that training saw often stay wide.

Which rows are hot is frozen before conversion. A file then holds three things in the place of a table: the hot rows,
the cold rows, both in the order of the table, and a directory that tells for every row in which of the two it stands
and where. The directory is a bit a row and ranks: of each 8 rows the bits and the number of hot rows before them in
their block of 256, and of each block the number of hot rows before it, 2.125 bits a row in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.recommender.model import Table

__all__ = [
    "GROUP",
    "BLOCK",
    "ColdRows",
    "Directory",
    "PLACES",
    "build_directory",
    "cold_of",
    "directory_bytes",
    "hot_bytes",
    "hot_values",
]

GROUP = 8
BLOCK = 256


def _places() -> np.ndarray:
    """[256 * 8, 2] uint8: for a byte of bits and a place in it, whether that bit is set, and the bits set before it."""
    values, places = np.divmod(np.arange(256 * GROUP), GROUP)
    is_set = values >> places & 1
    before = values & (1 << places) - 1
    counts = sum(before >> bit & 1 for bit in range(GROUP))
    return np.stack([is_set, counts], axis=1).astype(np.uint8)


PLACES = _places()


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Where rows stand.

    Attributes:
        groups: uint8 [ceil(rows / 8), 2]: a bit for each of 8 rows, lowest first; hot rows before them in their block.
        blocks: int32 [ceil(rows / 256), 1]: hot rows before the block.
        hot: Number of hot rows.
    """

    rows: int
    hot: int
    groups: np.ndarray
    blocks: np.ndarray

    @property
    def bytes(self) -> int:
        """What it takes in a file, without the table of bytes that all directories share."""
        return int(self.groups.nbytes + self.blocks.nbytes)

    def find(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether each row is hot, and its place among the hot or the cold rows."""
        rows = np.asarray(rows, np.int64)
        bits, below = self.groups[rows // GROUP].astype(np.int64).T
        is_hot, inside = PLACES[bits * GROUP + rows % GROUP].astype(np.int64).T
        rank = self.blocks[rows // BLOCK, 0] + below + inside
        return is_hot.astype(bool), np.where(is_hot, rank, rows - rank)


def build_directory(hot: np.ndarray, rows: int) -> Directory:
    """The directory of a table, or of tables below one another, from the sorted numbers of hot rows."""
    marks = np.zeros(-(-rows // BLOCK) * BLOCK, np.uint8)
    marks[hot] = 1
    counts = marks.reshape(-1, GROUP).sum(1, dtype=np.int64)
    before = np.concatenate([[0], np.cumsum(counts)[:-1]]).reshape(-1, BLOCK // GROUP)
    bits = np.packbits(marks, bitorder="little")
    below = (before - before[:, :1]).reshape(-1).astype(np.uint8)
    groups = np.stack([bits, below], axis=1)[: -(-rows // GROUP)]
    return Directory(
        rows=rows, hot=len(hot), groups=np.ascontiguousarray(groups), blocks=before[:, :1].astype(np.int32)
    )


class ColdRows:
    """The rows of a table without its hot ones, read like an array; nothing of it is copied before it is asked for."""

    def __init__(self, table: np.ndarray, hot: np.ndarray) -> None:
        self.table, self.hot = table, np.asarray(hot, np.int64)
        self.shape = (len(table) - len(hot), table.shape[1])
        self.ndim, self.dtype, self.size, self.base = 2, table.dtype, self.shape[0] * self.shape[1], None
        # Cold row k stands behind all hot rows h_i with h_i - i <= k.
        self._shifts = self.hot - np.arange(len(self.hot))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        assert step == 1, "rows are read in their order"
        if stop <= start:
            return np.empty((0, self.shape[1]), self.dtype)
        first, last = (self._source(row) for row in (start, stop - 1))
        part = np.asarray(self.table[first : last + 1])
        inside = self.hot[np.searchsorted(self.hot, first) : np.searchsorted(self.hot, last)]
        return part if not len(inside) else np.delete(part, inside - first, axis=0)

    def _source(self, row: int) -> int:
        return row + int(np.searchsorted(self._shifts, row, side="right"))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def cold_of(values: np.ndarray | None, hot: np.ndarray) -> np.ndarray | None:
    """A value for each row without those of hot rows; one value for all rows, or None, as it is."""
    return values if values is None or len(values) == 1 else np.delete(values, hot, axis=0)


def hot_bytes(table: Table) -> int:
    """Bytes of a table's hot rows and of its part of the directory; 0 where it has none."""
    if table.hot is None:
        return 0
    return table.hot.count * table.dim * table.hot.bits // 8 + directory_bytes(table.rows)


def directory_bytes(rows: int) -> int:
    """Bytes of a directory of so many rows."""
    return 2 * -(-rows // GROUP) + 4 * -(-rows // BLOCK)


def hot_values(tables: Sequence[np.ndarray], hot: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    """The hot rows of tables below one another."""
    return np.concatenate([np.asarray(table[rows], dtype) for table, rows in zip(tables, hot, strict=True)])
