"""Tables of any size for ExecuTorch: the program is made with two rows of each, all rows are streamed into `model.ptd`.

The storage is that of `recommender_tables`. What stands for a table while the program is made has its shape and no
memory; in the written program the two rows of each stub are then renamed to as many as the `.ptd` holds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from converters.executorch.recommender_tables import (
    LARGEST_HALF,
    StackedTables,
    quantized_rows,
    row_scales,
    scale_type,
    table_scale,
)
from converters.recommender.resumable import Part, Staging, made_part, write_parts
from converters.recommender.rows import encoded, extremes
from edge_deploy.core.errors import BadInput, ToolchainError, VerificationFailed
from edge_deploy.core.require import require
from runtimes.formats.flat_table import root_table
from runtimes.formats.ptd_file import map_named_weights

__all__ = [
    "DATA",
    "StreamedTables",
    "is_table_constant",
    "put_stubs",
    "read_back_streamed",
    "stream_tables",
    "write_tables",
]

MODEL, DATA = "model.pte", "model.ptd"
ALIGNMENT = 16
STUB_ROWS = 2
_TENSOR, _EXTERNAL = 5, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedTables:
    """Tables of one width, below one another, whose bytes are made when they are written.

    Attributes:
        stacked: Their shapes, and the scales where there is one a table; rows and row scales are zeros without memory.
        rows: The stored rows.
        scales: Scales of the rows; empty where there is one a table, or none.
    """

    stacked: StackedTables
    rows: tuple[Part, ...]
    scales: tuple[Part, ...]


def stream_tables(
    tables: Sequence[np.ndarray],
    *,
    names: Sequence[str],
    bits: int,
    scale: Literal["row", "table"],
    trained: Sequence[np.ndarray | None] = (),
) -> StreamedTables:
    """As `recommender_tables.stack_tables`, with one look at each table for its largest value.

    Raises:
        BadInput: A table holds NaN or infinity; all such tables are named.
    """
    sizes = [len(table) for table in tables]
    offsets = tuple(int(start) for start in np.cumsum([0, *sizes[:-1]]))
    dim, rows = tables[0].shape[1], sum(sizes)
    learned = tuple(trained) or (None,) * len(tables)
    largest = [max(high, -low) for low, high in map(extremes, tables)]
    wrong = [name for name, most in zip(names, largest, strict=True) if not np.isfinite(most)]
    if wrong:
        raise BadInput(*(f"table {name}: holds NaN or infinity; train it again or mend it." for name in wrong))
    if bits == 32:
        parts = tuple(part for table in tables for part in encoded(table, 4 * dim, _as_they_are))
        empty = np.empty(0, np.float32)
        whole = _without_memory((rows, dim), np.float32)
        stacked = StackedTables(bits=32, granularity="none", dim=dim, offsets=offsets, stored=whole, scales=empty)
        return StreamedTables(stacked=stacked, rows=parts, scales=())
    steps = 127.5 if bits == 8 else 7.5
    width = max(dim, 2 if scale == "row" else 1) if bits == 8 else (dim + 1) // 2
    stored = _without_memory((rows, width), np.int8 if bits == 8 else np.uint8)
    scale_parts: list[Part] = []
    if scale == "table":
        each = [table_scale(most, steps) if own is None else own[0] for most, own in zip(largest, learned, strict=True)]
        scales = np.array(each, np.float32)
        encoders: list[Any] = [partial(_rows_of_table, value, bits, width) for value in scales]
    else:
        kind = _scale_type(max(largest) / steps, learned)
        scales = _without_memory((rows,), kind)
        encoders = []
        for table, own in zip(tables, learned, strict=True):
            if own is None:
                find = partial(_found_scales, steps, kind)
                scale_parts += encoded(table, np.dtype(kind).itemsize, find)
                encoders.append(partial(_rows_of_rows, find, bits, width))
            else:
                scale_parts.append(made_part(own.astype(kind).tobytes()))
                encoders.append(None)
    row_parts: list[Part] = []
    for table, encode, own in zip(tables, encoders, learned, strict=True):
        if encode is None:
            assert own is not None
            row_parts += _with_own_scales(table, own, bits, width)
        else:
            row_parts += encoded(table, width, encode)
    stacked = StackedTables(bits=bits, granularity=scale, dim=dim, offsets=offsets, stored=stored, scales=scales)
    return StreamedTables(stacked=stacked, rows=tuple(row_parts), scales=tuple(scale_parts))


def _without_memory(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.broadcast_to(np.zeros((), dtype), shape)


def _scale_type(largest: float, learned: Sequence[np.ndarray | None]) -> Any:
    """float16 where that is exact enough, as in `recommender_tables`."""
    known = [own for own in learned if own is not None]
    fits = all(np.array_equal(own.clip(max=LARGEST_HALF).astype(np.float16), own) for own in known)
    return scale_type(largest) if fits else np.float32


def _as_they_are(rows: np.ndarray) -> np.ndarray:
    return rows


def _found_scales(steps: float, kind: Any, rows: np.ndarray) -> np.ndarray:
    columns = np.ascontiguousarray(rows.T)  # ten times faster than reducing the short axis in place
    return row_scales(np.maximum(columns.max(0, initial=0.0), -columns.min(0, initial=0.0)), steps, kind)


def _rows_of_table(scale: np.float32, bits: int, width: int, rows: np.ndarray) -> np.ndarray:
    return quantized_rows(rows, np.full((len(rows), 1), scale, np.float32), bits, width)


def _rows_of_rows(find: Any, bits: int, width: int, rows: np.ndarray) -> np.ndarray:
    return quantized_rows(rows, find(rows).astype(np.float32)[:, None], bits, width)


def _with_own_scales(table: np.ndarray, own: np.ndarray, bits: int, width: int) -> Iterator[Part]:
    step = 1 << 14
    for start in range(0, len(table), step):
        part, scales = table[start : start + step], own[start : start + step, None].astype(np.float32)
        yield Part(size=len(part) * width, make=partial(_made_rows, part, scales, bits, width))


def _made_rows(rows: np.ndarray, scales: np.ndarray, bits: int, width: int) -> np.ndarray:
    return quantized_rows(np.asarray(rows, np.float32), scales, bits, width)


def put_stubs(module: Any, streamed: Sequence[StreamedTables]) -> None:
    """Give each look-up of the graph two rows that are nobody else's: equal constants are stored once."""
    torch = require("torch", extra="export-executorch")
    random = np.random.default_rng(0)
    for index, tables in enumerate(streamed):
        owner = module.get_submodule(f"lookups.{index}")
        like = tables.stacked.stored
        filled = random.integers(1, 100, (STUB_ROWS, like.shape[1])).astype(like.dtype)
        filled[0, 0] = index + 1
        owner.rows = torch.from_numpy(filled)
        if tables.stacked.granularity == "row":
            values = (np.arange(STUB_ROWS) + 2 * index + 1).astype(tables.stacked.scales.dtype)
            owner.scales = torch.from_numpy(values)


def is_table_constant(node: Any) -> bool:
    """Whether a placeholder of the lowered graph is the rows or the row scales of a look-up."""
    parts = str(node.target).split("_")
    return parts[:2] == ["b", "lookups"] and len(parts) == 4 and parts[3] in ("rows", "scales")


def write_tables(program: bytes, *, streamed: Sequence[StreamedTables], folder: Path, staging: Staging | None) -> str:
    """Write the program with its tables' true sizes, and the tables beside it; returns the `.ptd`'s sha256.

    Raises:
        ToolchainError: The program does not ask for exactly these tables.
    """
    wanted: dict[str, tuple[np.ndarray, tuple[Part, ...]]] = {}
    for index, tables in enumerate(streamed):
        wanted[f"lookups.{index}.rows"] = (tables.stacked.stored, tables.rows)
        if tables.stacked.granularity == "row":
            wanted[f"lookups.{index}.scales"] = (tables.stacked.scales, tables.scales)
    data = bytearray(program)
    found = _resize(data, {key: len(array) for key, (array, _) in wanted.items()})
    if found != set(wanted):
        raise ToolchainError(f"ExecuTorch: the program asks for {sorted(found)} outside it, expected {sorted(wanted)}.")
    (folder / MODEL).write_bytes(data)
    return write_parts(_ptd_parts(wanted), folder / DATA, staging=staging)


def _resize(data: bytearray, rows: Mapping[str, int]) -> set[str]:
    """Change the first size of the external tensors; returns those that were found."""
    found = set()
    for plan in root_table(memoryview(data), where="model.pte").tables(1):
        for value in plan.tables(2):
            tensor = value.table(1) if value.number(0, "u8") == _TENSOR else None
            extra = tensor.table(9) if tensor is not None else None
            if tensor is None or extra is None or extra.number(2, "i8") != _EXTERNAL:
                continue
            key = extra.text(1)
            found.add(key)
            if key in rows:
                struct.pack_into("<i", data, tensor.vector_start(2), rows[key])
    return found


def _ptd_parts(wanted: Mapping[str, tuple[np.ndarray, tuple[Part, ...]]]) -> list[Part]:
    """The whole file: ExecuTorch writes the head and the gaps, we the tables."""
    cord: Any = require("executorch.exir._serialize._cord", extra="export-executorch")
    serializer: Any = require("executorch.extension.flat_tensor.serialize.serialize", extra="export-executorch")
    data: Any = require("executorch.exir._serialize.data_serializer", extra="export-executorch")
    schema: Any = require("executorch.exir.scalar_type", extra="export-executorch").ScalarType
    layout: Any = require("executorch.exir.tensor_layout", extra="export-executorch").TensorLayout
    types = {"float32": schema.FLOAT, "float16": schema.HALF, "int8": schema.CHAR, "uint8": schema.BYTE}

    class Later(cord.FileBackedData):  # type: ignore[misc]
        def __init__(self, parts: tuple[Part, ...]) -> None:
            self.parts = parts
            self._finalizer = None

        def __len__(self) -> int:
            return sum(part.size for part in self.parts)

    buffers: list[Any] = []
    named: dict[str, Any] = {}
    for key, (array, parts) in wanted.items():
        named[key] = data.DataEntry(
            buffer_index=len(buffers),
            alignment=ALIGNMENT,
            tensor_layout=layout(types[array.dtype.name], list(array.shape), list(range(array.ndim))),
        )
        buffers.append(Later(parts))
    made = serializer.FlatTensorSerializer().serialize(data.DataPayload(buffers=buffers, named_data=named))
    found: list[Part] = []
    for item in made._buffers:
        found += item.parts if isinstance(item, Later) else [made_part(bytes(item))]
    return found


def read_back_streamed(folder: Path, streamed: Sequence[StreamedTables]) -> tuple[StackedTables, ...]:
    """The tables as the written `.ptd` has them, mapped.

    Raises:
        VerificationFailed: A table is missing or has another size.
    """
    entries = map_named_weights(folder / DATA)
    found = []
    for index, tables in enumerate(streamed):
        like = tables.stacked

        def mapped(key: str, array: np.ndarray) -> np.ndarray:
            entry = entries.get(key)
            if entry is None or entry.size != array.size * array.itemsize:
                raise VerificationFailed(f"{folder / DATA}: {key} is missing or of another size.")
            return np.memmap(folder / DATA, array.dtype, "r", entry.start, array.shape)

        scales = mapped(f"lookups.{index}.scales", like.scales) if like.granularity == "row" else like.scales
        found.append(replace(like, stored=mapped(f"lookups.{index}.rows", like.stored), scales=scales))
    return tuple(found)
