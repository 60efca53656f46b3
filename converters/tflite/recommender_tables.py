"""How embedding tables are stored in an emitted file: fused by width, in chunks of rows, never whole in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from converters.recommender.model import Recommender, Table
from converters.recommender.rows import row_chunks
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.robe import RobeHash

__all__ = [
    "Fused",
    "Storage",
    "absolute_maxima",
    "plan_tables",
    "quantize_rows",
    "row_chunks",
    "row_scales",
    "storage_of",
    "table_scale",
]

Storage: TypeAlias = Literal["float32", "float16", "int8-row", "int4-row", "int8-table", "int4-table"]
LARGEST_HALF = 65504.0
SMALLEST_HALF = 2.0**-24
SMALLEST_FLOAT = 2.0**-120  # of a float32 scale: its reciprocal must stay finite
ROWS_LIMIT = 2**31 - 1  # row numbers are int32
ALIKE = "give all tables of a shared array the same bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """Tables of one width and storage in one constant, one after the other.

    Attributes:
        tables: Numbers of the tables, in the order of their rows.
        starts: First row of each.
        stored_dim: `dim`, or one more: a row of packed 4-bit values must begin on a byte.
        robe: Where the elements of rows stand in the shared array that this is. Then `starts` are the tables' first
            ids, `rows` and `stored_dim` those of the array in the file.
        hot_bits: Of rows that stay wide, 0 where there are none; then `rows` counts the others alone.
    """

    name: str
    storage: Storage
    tables: tuple[int, ...]
    starts: tuple[int, ...]
    rows: int
    dim: int
    stored_dim: int
    robe: RobeHash | None = None
    hot_bits: int = 0

    def start_of(self, table: int) -> int:
        """First row of a table."""
        return self.starts[self.tables.index(table)]


def storage_of(spec: QuantSpec, table: Table) -> Storage:
    """How the table is to be stored; the spec's rules count."""
    bits = spec.bits_for(table.name)
    if bits == 32:
        return "float32"
    if bits == 16:
        return "float16"
    scale = "row" if spec.table_scale == "row" else "table"
    stored: Storage = f"int{bits}-{scale}"  # type: ignore[assignment]  # bits is 4 or 8
    return stored


def plan_tables(model: Recommender, spec: QuantSpec, maxima: Sequence[float]) -> tuple[Fused, ...]:
    """Which tables are fused.

    Args:
        maxima: Largest magnitude in each table.

    Raises:
        Unsupported: A table's values do not fit its scales, or there are too many rows.
    """
    refusals = []
    groups: dict[tuple[int, Storage, int], list[int]] = {}
    fused = list(plan_arrays(model, spec, maxima))
    for number, table in enumerate(model.tables):
        if table.robe is not None:
            continue
        storage = storage_of(spec, table)
        if storage == "int4-row" and maxima[number] / 7 > LARGEST_HALF:
            if spec.fallback_bits is None:
                refusals.append(_too_large(table, maxima[number]))
            storage = "int8-row" if spec.fallback_bits == 8 else "float32"
        if storage == "float16" and maxima[number] > LARGEST_HALF:
            if spec.fallback_bits != 32:
                refusals.append(_beyond_half(table, maxima[number]))
            storage = "float32"
        groups.setdefault((table.dim, *with_hot_rows(table, storage)), []).append(number)
    for (dim, storage, hot_bits), numbers in groups.items():
        starts = np.cumsum([0, *(model.tables[number].rows for number in numbers)])
        if starts[-1] > ROWS_LIMIT:
            reason = f"{starts[-1]} rows of width {dim} in one file; row numbers are 32-bit"
            refusals.append(Refusal(layer=model.tables[numbers[0]].name, op="EMBEDDING_LOOKUP", reason=reason))
        stored = dim + dim % 2 if storage.startswith("int4") else dim
        name = model.tables[numbers[0]].name if len(numbers) == 1 else f"tables.{dim}.{storage}"
        kept = [model.tables[number].hot for number in numbers] if hot_bits else []
        hot = sum(each.count for each in kept if each is not None)
        name = f"{name}.cold" if hot_bits and len(numbers) > 1 else name
        fused.append(
            Fused(
                name=name,
                storage=storage,
                tables=tuple(numbers),
                starts=tuple(int(start) for start in starts[:-1]),
                rows=int(starts[-1]) - hot,
                dim=dim,
                stored_dim=stored,
                hot_bits=hot_bits,
            )
        )
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    return tuple(fused)


def with_hot_rows(table: Table, storage: Storage) -> tuple[Storage, int]:
    """How the cold rows of a table are stored, and bits of its hot rows; 0 where all rows are alike."""
    hot = table.hot
    if hot is None or storage.startswith("float"):
        return storage, 0
    if hot.count == table.rows:
        return ("float16" if hot.bits == 16 else "float32"), 0
    return storage, hot.bits


def plan_arrays(model: Recommender, spec: QuantSpec, maxima: Sequence[float]) -> tuple[Fused, ...]:
    """The arrays that tables share (ROBE), each with one scale at 8 or 4 bits.

    Raises:
        Unsupported: Rules ask different widths of tables that are one array, or values are beyond float16.
    """
    members: dict[tuple[str, RobeHash], list[int]] = {}
    for number, table in enumerate(model.tables):
        if table.robe is not None:
            members.setdefault((table.weight, table.robe.hash), []).append(number)
    refusals, fused = [], []
    for (name, made), numbers in members.items():
        first = model.tables[numbers[0]]
        bits = spec.bits_for(first.name)
        for number in numbers:
            if spec.bits_for(model.tables[number].name) != bits:
                reason = f"it is one array with {first.name}, which is asked {bits} bits"
                refusals.append(
                    Refusal(layer=model.tables[number].name, op="EMBEDDING_LOOKUP", reason=reason, remedy=ALIKE)
                )
        if bits == 16 and maxima[numbers[0]] > LARGEST_HALF:
            if spec.fallback_bits != 32:
                refusals.append(_beyond_half(first, maxima[numbers[0]]))
            bits = 32
        wide: dict[int, Storage] = {32: "float32", 16: "float16", 8: "int8-table", 4: "int4-table"}
        pairs = 2 if bits == 4 else 1  # two packed values are a row of a byte
        fused.append(
            Fused(
                name=name,
                storage=wide[bits],
                tables=tuple(numbers),
                starts=tuple(_offset(model.tables[number]) for number in numbers),
                rows=-(-made.size // pairs),
                dim=made.dim,
                stored_dim=pairs,
                robe=made,
            )
        )
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    return tuple(fused)


def _offset(table: Table) -> int:
    assert table.robe is not None
    return table.robe.offset


def _too_large(table: Table, maximum: float) -> Refusal:
    return Refusal(
        layer=table.name,
        op="EMBEDDING_LOOKUP",
        reason=f"its largest value {maximum:.3g} needs a row scale beyond float16, the only type of INT4 row scales",
        remedy="use --table-scale table, or --fallback int8",
    )


def _beyond_half(table: Table, maximum: float) -> Refusal:
    return Refusal(
        layer=table.name,
        op="EMBEDDING_LOOKUP",
        reason=f"its largest value {maximum:.3g} is beyond float16",
        remedy="pass --fallback float32 to leave it in float",
    )


def absolute_maxima(model: Recommender, arrays: Mapping[str, np.ndarray]) -> tuple[float, ...]:
    """Largest magnitude in each table.

    Raises:
        BadInput: A table holds NaN or infinity; all such tables are named.
    """
    maxima, problems = [], []
    for table in model.tables:
        largest = 0.0
        for chunk in row_chunks(arrays[table.weight]):
            # NaN passes through maximum, so one look finds both NaN and infinity.
            largest = float(np.maximum(largest, np.abs(chunk).max(initial=0.0)))
            if not np.isfinite(largest):
                problems.append(f"table {table.name}: holds NaN or infinity; train it again or repair the checkpoint.")
                break
        maxima.append(largest)
    if problems:
        raise BadInput(*problems)
    return tuple(maxima)


def _extremes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Ten times faster than reducing the short axis in place.
    columns = np.ascontiguousarray(rows.T)
    return columns.min(0, initial=0.0), columns.max(0, initial=0.0)


def row_scales(rows: np.ndarray, bits: int) -> np.ndarray:
    """One scale for each row: float16 for 4 bits, float32 for 8. Rows of zeros get the smallest scale.

    INT4 uses [-8, 7], so the side with the larger magnitude decides; INT8 keeps to [-127, 127].
    """
    low, high = _extremes(rows)
    if bits == 8:
        wide: np.ndarray = np.maximum(np.maximum(high, -low) / np.float32(127), np.float32(SMALLEST_FLOAT))
        return wide.astype(np.float32)
    wanted = np.maximum(high / np.float32(7), low / np.float32(-8))
    scales = np.maximum(wanted, np.float32(SMALLEST_HALF)).astype(np.float16)
    # Rounding a small scale down could push the extreme more than half a step beyond the last value.
    short = scales.astype(np.float32) * np.float32(1 + 1 / 16) < wanted
    scales[short] = np.nextafter(scales[short], np.float16(np.inf))
    return scales


def table_scale(low: float, high: float, bits: int) -> float:
    """One scale for a table whose values lie in [low, high]."""
    scale = max(high, -low) / 127 if bits == 8 else max(high / 7, low / -8)
    return float(np.float32(max(scale, SMALLEST_FLOAT)))


def quantize_rows(rows: np.ndarray, scales: np.ndarray, bits: int, stored_dim: int) -> np.ndarray:
    """Stored rows [n, dim]: int8 [n, dim], or uint8 [n, stored_dim / 2] with the even column in the low nibble."""
    stored = rows / scales.astype(np.float32).reshape(-1, 1)
    np.rint(stored, out=stored)
    if bits == 8:
        return np.clip(stored, -127, 127, out=stored).astype(np.int8)
    np.clip(stored, -8, 7, out=stored)
    if stored_dim == rows.shape[1]:
        values = stored.astype(np.int8)
    else:
        values = np.zeros((len(rows), stored_dim), np.int8)
        values[:, : rows.shape[1]] = stored
    pairs = values.view("<u2")  # the even column is the low byte
    packed: np.ndarray = ((pairs & 0x0F) | ((pairs >> 4) & 0xF0)).astype(np.uint8)
    return packed
