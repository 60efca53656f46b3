"""Embedding tables for ExecuTorch's kernels: rows of one width side by side, quantized in chunks of mapped arrays.

Storage is that of `quantized_decomposed.embedding_byte` (int8) and `embedding_4bit` (two values a byte, the one of even
index in the upper half, value + 8), scales float16 a row. A row's scale is max|w| / 127.5 or max|w| / 7.5, rounded up
to float16: the largest value then rounds or clips to the end of the range and no value is off by more than half a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from converters.recommender.rows import give_back
from edge_deploy.core.errors import BadInput, VerificationFailed

__all__ = [
    "LARGEST_HALF",
    "StackedTables",
    "check_finite",
    "check_half_a_step",
    "dequantized",
    "quantized_rows",
    "row_scales",
    "scale_type",
    "stack_tables",
    "table_scale",
]

CHUNK_ROWS = 1 << 14
SMALLEST_NORMAL_HALF = 2.0**-14
LARGEST_HALF = 65504.0
# The step is known to float32 only; so is the difference of a value and its dequantized self.
ROUNDING = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedTables:
    """Tables of one width, below one another.

    Attributes:
        bits: 32 (float32 rows), 8 or 4.
        granularity: "row": `scales` [rows]; "table": `scales` [tables]; "none" for float.
        dim: Width of a row as the model sees it; stored rows are padded to an even width at 4 bits.
        offsets: First row of each table.
        stored: float32 [rows, dim], int8 [rows, dim] (two columns for one value) or uint8 [rows, (dim + 1) // 2].
        scales: float16 or float32.
    """

    bits: int
    granularity: Literal["none", "row", "table"]
    dim: int
    offsets: tuple[int, ...]
    stored: np.ndarray
    scales: np.ndarray


def check_finite(name: str, values: np.ndarray) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        BadInput: Names the layer and how many values are concerned.
    """
    wrong = sum(int((~np.isfinite(part)).sum()) for _, part in _chunks(values))
    if wrong:
        raise BadInput(
            f"layer {name}: {wrong} of {values.size} weights are NaN or infinite; train it again or mend it."
        )


def stack_tables(
    tables: Sequence[np.ndarray],
    *,
    bits: int,
    scale: Literal["row", "table"],
    trained: Sequence[np.ndarray | None] = (),
) -> StackedTables:
    """Quantize tables [rows, dim] of one width.

    Args:
        bits: 32, 8 or 4.
        scale: One scale a row, or one a table; without meaning at 32 bits.
        trained: For each table the scales that training learned, as many as `scale` says, or None to find them.
    """
    learned = tuple(trained) or (None,) * len(tables)
    sizes = [len(table) for table in tables]
    offsets = tuple(int(start) for start in np.cumsum([0, *sizes[:-1]]))
    dim, rows = tables[0].shape[1], sum(sizes)
    if bits == 32:
        whole = np.concatenate([np.asarray(table, np.float32) for table in tables])
        return StackedTables(
            bits=32, granularity="none", dim=dim, offsets=offsets, stored=whole, scales=np.empty(0, np.float32)
        )
    largest = [_row_maxima(table) for table in tables]
    steps = 127.5 if bits == 8 else 7.5
    if scale == "table":
        found = [table_scale(float(maxima.max(initial=0.0)), steps) for maxima in largest]
        scales = np.array([f if t is None else t[0] for f, t in zip(found, learned, strict=True)], np.float32)
        per_row = [np.full(size, value, np.float32) for size, value in zip(sizes, scales, strict=True)]
    else:
        scales = _with_learned(_found_scales(np.concatenate(largest), steps), learned, sizes)
        per_row = np.split(scales, np.cumsum(sizes)[:-1])
    # embedding_byte, the kernel of one scale a row, refuses rows of one value.
    width = max(dim, 2 if scale == "row" else 1) if bits == 8 else (dim + 1) // 2
    stored = np.zeros((rows, width), np.int8 if bits == 8 else np.uint8)
    for table, start, own in zip(tables, offsets, per_row, strict=True):
        for at, part in _chunks(table):
            row = own[at : at + len(part)].astype(np.float32)[:, None]
            values = _stored(part, row, bits)
            stored[start + at : start + at + len(part), : values.shape[1]] = values
    return StackedTables(bits=bits, granularity=scale, dim=dim, offsets=offsets, stored=stored, scales=scales)


def dequantized(stacked: StackedTables, table: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [start, stop) of a table as float32 [rows, dim], and their steps [rows, 1]."""
    first = stacked.offsets[table]
    stored = stacked.stored[first + start : first + stop]
    if stacked.bits == 32:
        return stored, np.zeros((len(stored), 1), np.float32)
    if stacked.granularity == "table":
        scale = np.full((len(stored), 1), stacked.scales[table], np.float32)
    else:
        scale = stacked.scales[first + start : first + stop].astype(np.float32)[:, None]
    if stacked.bits == 8:
        return stored[:, : stacked.dim].astype(np.float32) * scale, scale
    values = np.stack([stored >> 4, stored & 15], axis=-1).reshape(len(stored), -1)[:, : stacked.dim]
    return (values.astype(np.float32) - 8) * scale, scale


def check_half_a_step(stacked: StackedTables, names: Sequence[str], tables: Sequence[np.ndarray]) -> None:
    """Compare every dequantized row with its source.

    Raises:
        VerificationFailed: A value is off by more than half a step; names the table and the row.
    """
    for index, (name, table) in enumerate(zip(names, tables, strict=True)):
        for at, part in _chunks(table):
            values, steps = dequantized(stacked, index, at, at + len(part))
            error = np.abs(values - part)
            wrong = error > steps * (0.5 + ROUNDING) + ROUNDING * np.abs(part) * (stacked.bits == 8)
            if wrong.any():
                row = int(wrong.any(axis=1).argmax())
                raise VerificationFailed(
                    f"table {name}: row {at + row} is off by {error[row].max():.3g}: more than half its step "
                    f"{float(steps[row, 0]):.3g}."
                )


def _chunks(table: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(table), CHUNK_ROWS):
        yield start, np.asarray(table[start : start + CHUNK_ROWS], np.float32)
        give_back(table, start, start + CHUNK_ROWS)


def _row_maxima(table: np.ndarray) -> np.ndarray:
    return np.concatenate([np.abs(part).max(axis=1, initial=0.0) for _, part in _chunks(table)])


def _found_scales(maxima: np.ndarray, steps: float) -> np.ndarray:
    return row_scales(maxima, steps, scale_type(float(maxima.max(initial=0.0)) / steps))


def table_scale(largest: float, steps: float) -> float:
    """The scale of a table whose largest magnitude this is."""
    return float(largest / steps) if largest > 0 else 1.0


def scale_type(largest: float) -> Any:
    """The type of row scales of which the largest is this: float16 where that is exact enough, else float32."""
    return np.float32 if largest > LARGEST_HALF / 2 or 0 < largest < SMALLEST_NORMAL_HALF else np.float16


def row_scales(maxima: np.ndarray, steps: float, kind: Any) -> np.ndarray:
    """One scale for each row from its largest magnitude.

    Args:
        kind: np.float16 or np.float32, see `scale_type`.
    """
    wanted = maxima.astype(np.float64) / steps
    scales = wanted.astype(kind)
    # Rounded up, so that max|w| / scale never exceeds the range it was made for.
    scales = np.where(scales < wanted, np.nextafter(scales, kind(np.inf)), scales)
    of_zeros = kind(SMALLEST_NORMAL_HALF) if kind is np.float16 else kind(1.0)
    found: np.ndarray = np.where(maxima > 0, scales, of_zeros).astype(kind)
    return found


def quantized_rows(rows: np.ndarray, scales: np.ndarray, bits: int, width: int) -> np.ndarray:
    """Stored rows [n, width] of float32 rows with scales [n, 1]."""
    values = _stored(rows, scales, bits)
    if values.shape[1] == width:
        return values
    stored = np.zeros((len(values), width), values.dtype)
    stored[:, : values.shape[1]] = values
    return stored


def _with_learned(scales: np.ndarray, learned: Sequence[np.ndarray | None], sizes: Sequence[int]) -> np.ndarray:
    """Learned scales in the place of those found, in a type that holds them exactly."""
    wide = scales.astype(np.float32)
    starts = np.cumsum([0, *sizes])
    for own, start, stop in zip(learned, starts, starts[1:], strict=False):
        if own is not None:
            wide[start:stop] = own
    halves = wide.clip(max=LARGEST_HALF).astype(np.float16)
    return halves if scales.dtype == np.float16 and np.array_equal(halves.astype(np.float32), wide) else wide


def _stored(values: np.ndarray, scale: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        whole: np.ndarray = np.clip(np.rint(values / scale), -128, 127).astype(np.int8)
        return whole
    nibbles = (np.clip(np.rint(values / scale), -8, 7) + 8).astype(np.uint8)
    if nibbles.shape[1] % 2:
        nibbles = np.pad(nibbles, ((0, 0), (0, 1)), constant_values=8)
    packed: np.ndarray = (nibbles[:, 0::2] << 4) | nibbles[:, 1::2]
    return packed
