"""Arrays that stay where they lie: a range of a file of any kind, mapped, and read some rows at a time.

A table is never copied into memory as a whole. What was read of it is given back to the system at once, so that a
conversion's resident memory does not grow with the table either.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converters.recommender.resumable import Part
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

__all__ = [
    "CHUNK_BYTES",
    "StoredArray",
    "chunk_rows",
    "encoded",
    "extremes",
    "give_back",
    "map_array",
    "row_chunks",
    "rows_of",
]

CHUNK_BYTES = 1 << 20  # of float32 rows looked at together
_TYPES = ("float32", "float16", "bfloat16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArray:
    """Where the numbers of an array stand: contiguous, little-endian, in C order.

    Attributes:
        offset: First byte in the file.
        dtype: NumPy's name, or "bfloat16".
    """

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in _TYPES or self.offset < 0 or any(size < 0 for size in self.shape):
            raise BadInput(f"{self.path}: an array of {self.dtype} {self.shape} at byte {self.offset}: cannot be read.")

    @property
    def bytes(self) -> int:
        """Size in the file."""
        count = 1
        for size in self.shape:
            count *= size
        return count * (2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize)


def map_array(stored: StoredArray) -> np.ndarray:
    """The array, mapped and read-only.

    Raises:
        BadInput: The file is missing or too short.
        MissingExtra: It holds bfloat16, whose NumPy type is not installed.
    """
    dtype = np.dtype(require("ml_dtypes", extra="export-tflite").bfloat16 if _is_brain(stored) else stored.dtype)
    if not stored.bytes:
        return np.zeros(stored.shape, dtype)
    try:
        size = stored.path.stat().st_size
        if stored.offset + stored.bytes > size:
            raise BadInput(
                f"{stored.path}: ends after {size} bytes, inside its arrays; it was cut short, copy it again."
            )
        return np.memmap(stored.path, dtype, "r", stored.offset, stored.shape)
    except OSError as error:
        raise BadInput(f"{stored.path}: cannot be read ({error.strerror}).") from error


def _is_brain(stored: StoredArray) -> bool:
    return stored.dtype == "bfloat16"


def chunk_rows(columns: int) -> int:
    """How many rows of this width are looked at together; even, so that packed halves end on a byte."""
    return max(2, CHUNK_BYTES // (4 * max(1, columns)) // 2 * 2)


def rows_of(table: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Rows [start, stop) as float32; a view where the table is float32 already."""
    return np.asarray(table[start:stop], np.float32)


def row_chunks(table: np.ndarray, step: int | None = None) -> Iterator[np.ndarray]:
    """The rows of a table, some at a time, as float32; each is valid until the next is asked for."""
    step = step or chunk_rows(table.shape[1])
    for start in range(0, table.shape[0], step):
        yield rows_of(table, start, start + step)
        give_back(table, start, start + step)


def encoded(
    table: np.ndarray, row_bytes: int, encode: Callable[[np.ndarray], np.ndarray], step: int | None = None
) -> Iterator[Part]:
    """The rows of a table in another form, to be written part by part.

    Args:
        row_bytes: What `encode` makes of one row; it gets some rows as float32.
    """
    step = step or chunk_rows(table.shape[1])

    def made(start: int, stop: int) -> np.ndarray:
        values = encode(rows_of(table, start, stop))
        # Where the values are a view of the file, the pages that are dropped here are read again.
        give_back(table, start, stop)
        return values

    for start in range(0, table.shape[0], step):
        stop = min(start + step, table.shape[0])
        yield Part(size=(stop - start) * row_bytes, make=partial(made, start, stop))


def extremes(table: np.ndarray) -> tuple[float, float]:
    """Smallest and largest value, with 0 between them; NaN where there is one.

    Two parts are looked at at a time.
    """
    step = chunk_rows(table.shape[1])

    def look(start: int) -> tuple[float, float]:
        rows = rows_of(table, start, start + step)
        found = float(rows.min(initial=0.0)), float(rows.max(initial=0.0))
        give_back(table, start, start + step)
        return found

    low, high = 0.0, 0.0
    with ThreadPoolExecutor(2, thread_name_prefix="look") as pool:
        for own_low, own_high in pool.map(look, range(0, table.shape[0], step)):
            # NaN passes through.
            low, high = float(np.minimum(low, own_low)), float(np.maximum(high, own_high))
    return low, high


def give_back(table: np.ndarray, start: int, stop: int) -> None:
    """Let the system take back the pages of rows [start, stop) of a mapped table; they stay in its cache."""
    mapped: Any = getattr(table, "_mmap", None)
    base: Any = getattr(table, "base", None)
    if mapped is None or base is not mapped or not hasattr(mapped, "madvise"):
        return
    row = table.strides[0]
    at = table.offset % mmap.ALLOCATIONGRANULARITY  # type: ignore[attr-defined]  # of a memmap
    first = (at + start * row) // mmap.PAGESIZE * mmap.PAGESIZE
    last = min(at + stop * row, len(mapped))
    if last > first:
        mapped.madvise(mmap.MADV_DONTNEED, first, last - first)
