"""Put the fused tables of a recommender into a file under construction, with a note of where each table stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from converters.quantize.uniform import Affine
from converters.recommender.hot_rows import ColdRows, cold_of
from converters.recommender.model import Recommender, Table
from converters.recommender.resumable import Part
from converters.recommender.rows import chunk_rows, encoded, give_back, rows_of
from converters.recommender.trained import TrainedScale, usable
from converters.tflite.emit import Constant, Emitter
from converters.tflite.recommender_hot import StoredHot, hot_ids, store_hot
from converters.tflite.recommender_robe import shared_constant
from converters.tflite.recommender_tables import Fused, Storage, quantize_rows, row_chunks, row_scales, table_scale

__all__ = ["TABLES_METADATA", "StoredTables", "note_table", "store_own_table", "store_tables"]

TABLES_METADATA = "edge_deploy.tables"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTables:
    """A fused table in the file.

    Attributes:
        table: Rows [rows, stored_dim].
        row_scales: float32 [rows, 1] to look up beside and multiply with; None where the table carries its scales.
        table_scales: Scale of each table, to multiply with; None likewise.
        hot: Rows that are not in `table`, and how they are found.
    """

    fused: Fused
    table: Constant
    row_scales: Constant | None = None
    table_scales: tuple[float, ...] | None = None
    hot: StoredHot | None = None


def store_tables(
    emitter: Emitter,
    model: Recommender,
    arrays: Mapping[str, np.ndarray],
    plan: tuple[Fused, ...],
    trained: Mapping[str, TrainedScale] | None = None,
) -> tuple[StoredTables, ...]:
    """The constants of all fused tables, streamed when the file is written.

    Args:
        trained: Scales that training learned, by table name; stored as they are.
    """
    stored = tuple(
        StoredTables(fused=fused, table=shared_constant(emitter, fused, arrays[fused.name]))
        if fused.robe is not None
        else _stored(emitter, model, arrays, fused, trained or {})
        for fused in plan
    )
    notes = [
        note_table(
            _cold_table(model, number, entry.fused),
            entry.table.name,
            entry.fused.storage,
            start=_cold_start(model, entry.fused, place),
            row_scales=None if entry.row_scales is None else entry.row_scales.name,
            table_scales=None if entry.table_scales is None else f"{entry.fused.name}/factors",
            place=_first_id(model, entry.fused, number),
        )
        for entry in stored
        if entry.fused.robe is None
        for place, number in enumerate(entry.fused.tables)
    ]
    notes += [
        note_table(
            Table(name=entry.fused.name, rows=entry.fused.rows, dim=entry.fused.stored_dim, weight=entry.fused.name),
            entry.table.name,
            entry.fused.storage,
        )
        for entry in stored
        if entry.fused.robe is not None
    ]
    notes += [note for entry in stored if entry.hot is not None for note in _hot_notes(model, entry.fused, entry.hot)]
    emitter.metadata(TABLES_METADATA, json.dumps(notes))
    return stored


def note_table(
    table: Table,
    tensor: str,
    storage: Storage,
    *,
    start: int = 0,
    row_scales: str | None = None,
    table_scales: str | None = None,
    place: int = 0,
) -> dict[str, object]:
    """Where a table stands in the file, for readers.

    Args:
        tensor: The constant that holds its rows, from row `start` on.
        row_scales: Constant with a float32 scale for each row of `tensor`.
        table_scales: Constant that looked-up vectors are multiplied with; this table's factor is at `place`, because
            ids of a fused look-up stand in the order of look-ups.
    """
    return {
        "name": table.name,
        "tensor": tensor,
        "storage": storage,
        "start": start,
        "rows": table.rows,
        "dim": table.dim,
        "row_scales": row_scales,
        "table_scales": table_scales,
        "place": place,
    }


def store_own_table(emitter: Emitter, name: str, weight: np.ndarray, scale: Affine | None) -> Constant:
    """A table that is not fused with others, in INT8 with one scale, or in float."""
    if scale is None:
        return emitter.streamed(
            name, weight.shape, "float32", lambda: _each([weight], 4 * weight.shape[1], lambda rows, _: rows)
        )
    step = np.float32(scale.scale)
    return emitter.streamed(
        name,
        weight.shape,
        "int8",
        lambda: _each(
            [weight], weight.shape[1], lambda rows, _: quantize_rows(rows, np.full(len(rows), step), 8, rows.shape[1])
        ),
        scale=np.array([step]),
    )


def _store(
    emitter: Emitter, fused: Fused, weights: list[np.ndarray], learned: Sequence[np.ndarray | None]
) -> StoredTables:
    shape = (fused.rows, fused.stored_dim)
    if fused.storage == "float32":
        table = emitter.streamed(
            fused.name, shape, "float32", lambda: _each(weights, 4 * fused.dim, lambda rows, _: rows)
        )
        return StoredTables(fused=fused, table=table)
    if fused.storage == "float16":
        table = emitter.streamed(
            fused.name, shape, "float16", lambda: _each(weights, 2 * fused.dim, lambda rows, _: rows.astype(np.float16))
        )
        return StoredTables(fused=fused, table=table)
    bits = 4 if fused.storage.startswith("int4") else 8
    kind = f"int{bits}"
    if fused.storage == "int4-row":
        scales = emitter.streamed(
            f"{fused.name}.row_scales",
            (fused.rows, 1),
            "float16",
            lambda: _by_row(weights, learned, 4, 2, _scales_alone),
        )
        halves = partial(_quantized, 4, fused.stored_dim)
        table = emitter.streamed(
            fused.name,
            shape,
            kind,
            lambda: _by_row(weights, learned, 4, fused.stored_dim // 2, halves),
            block_scales=scales,
        )
        return StoredTables(fused=fused, table=table)
    unit = np.ones(1, np.float32)
    if fused.storage == "int8-row":
        # Scales of its own for every row would stand in the root of the file, with eight bytes of zero point each, and
        # on the heap once loaded, again for every signature. As a second table they cost four bytes in the file.
        scales = emitter.streamed(
            f"{fused.name}.row_scales",
            (fused.rows, 1),
            "float32",
            lambda: _by_row(weights, learned, 8, 4, _scales_alone),
        )
        table = emitter.streamed(
            fused.name,
            shape,
            kind,
            lambda: _by_row(weights, learned, 8, fused.dim, partial(_quantized, 8, fused.stored_dim)),
            scale=unit,
        )
        return StoredTables(fused=fused, table=table, row_scales=scales)
    per_table = tuple(
        _scale_of(weight, bits) if own is None else float(own[0]) for weight, own in zip(weights, learned, strict=True)
    )
    table = emitter.streamed(
        fused.name,
        shape,
        kind,
        lambda: _each(
            weights,
            shape[1] * bits // 8,
            lambda rows, n: quantize_rows(rows, np.full(len(rows), per_table[n], np.float32), bits, shape[1]),
        ),
        scale=unit if len(per_table) > 1 else np.array(per_table, np.float32),
    )
    if len(per_table) == 1:
        return StoredTables(fused=fused, table=table)
    return StoredTables(fused=fused, table=table, table_scales=per_table)


def _stored(
    emitter: Emitter,
    model: Recommender,
    arrays: Mapping[str, np.ndarray],
    fused: Fused,
    trained: Mapping[str, TrainedScale],
) -> StoredTables:
    weights = [arrays[model.tables[n].weight] for n in fused.tables]
    learned = [usable(trained, model.tables[n].name, _bits(fused.storage)) for n in fused.tables]
    if not fused.hot_bits:
        return _store(emitter, fused, weights, learned)
    hot = [hot_ids(model, arrays, n) for n in fused.tables]
    cold: list[Any] = [ColdRows(weight, ids) for weight, ids in zip(weights, hot, strict=True)]
    kept = _store(emitter, fused, cold, [cold_of(own, ids) for own, ids in zip(learned, hot, strict=True)])
    return replace(kept, hot=store_hot(emitter, model, arrays, fused))


def _hot_count(model: Recommender, number: int) -> int:
    hot = model.tables[number].hot
    return 0 if hot is None else hot.count


def _cold_table(model: Recommender, number: int, fused: Fused) -> Table:
    """A table as its note describes it: without the rows that stand elsewhere."""
    table = model.tables[number]
    return replace(table, rows=table.rows - _hot_count(model, number), hot=None) if fused.hot_bits else table


def _cold_start(model: Recommender, fused: Fused, place: int) -> int:
    before = fused.tables[:place] if fused.hot_bits else ()
    return fused.starts[place] - sum(_hot_count(model, number) for number in before)


def _hot_notes(model: Recommender, fused: Fused, hot: StoredHot) -> Iterator[dict[str, object]]:
    """Where the hot rows of each table stand, under the name of the table with ".hot"."""
    storage: Storage = "float16" if fused.hot_bits == 16 else "float32"
    start = 0
    for number in fused.tables:
        table = model.tables[number]
        count = _hot_count(model, number)
        own = Table(name=f"{table.name}.hot", rows=count, dim=table.dim, weight=table.weight)
        yield note_table(own, hot.rows.name, storage, start=start)
        start += count


def _first_id(model: Recommender, fused: Fused, table: int) -> int:
    lengths = [(lookup.table, lookup.length) for lookup in model.lookups if lookup.table in fused.tables]
    before = next((place for place, (number, _) in enumerate(lengths) if number == table), 0)
    return sum(length for _, length in lengths[:before])


def _scale_of(weight: np.ndarray, bits: int) -> float:
    low = min((float(rows.min(initial=0.0)) for rows in row_chunks(weight)), default=0.0)
    high = max((float(rows.max(initial=0.0)) for rows in row_chunks(weight)), default=0.0)
    return table_scale(low, high, bits)


def _each(weights: list[np.ndarray], row_bytes: int, encode: Callable[[np.ndarray, int], np.ndarray]) -> Iterator[Part]:
    for number, weight in enumerate(weights):
        yield from encoded(weight, row_bytes, partial(_numbered, encode, number))


def _by_row(
    weights: list[np.ndarray],
    learned: Sequence[np.ndarray | None],
    bits: int,
    row_bytes: int,
    encode: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Iterator[Part]:
    """Parts made of rows and their scales: those that training learned, or else found from the rows themselves."""
    for weight, own in zip(weights, learned, strict=True):
        step = chunk_rows(weight.shape[1])
        for start in range(0, len(weight), step):
            stop = min(start + step, len(weight))
            made = partial(_rows_made, weight, own, bits, start, stop, encode)
            yield Part(size=(stop - start) * row_bytes, make=made)


def _rows_made(
    weight: np.ndarray,
    own: np.ndarray | None,
    bits: int,
    start: int,
    stop: int,
    encode: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    rows = rows_of(weight, start, stop)
    kind = np.float16 if bits == 4 else np.float32
    values = encode(rows, row_scales(rows, bits) if own is None else own[start:stop].astype(kind))
    give_back(weight, start, stop)
    return values


def _scales_alone(rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return scales


def _quantized(bits: int, stored_dim: int, rows: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return quantize_rows(rows, scales, bits, stored_dim)


def _bits(storage: Storage) -> int:
    return {"float32": 32, "float16": 16}.get(storage, 4 if storage.startswith("int4") else 8)


def _numbered(encode: Callable[[np.ndarray, int], np.ndarray], number: int, rows: np.ndarray) -> np.ndarray:
    return encode(rows, number)
