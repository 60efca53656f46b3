"""Hold the tables of a written file against their source: every row, dequantized from the bytes as a runtime would."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.recommender.hot_rows import ColdRows
from converters.recommender.model import Recommender, Table
from converters.tflite.flatbuffer import schema
from converters.tflite.recommender_robe import paired
from converters.tflite.recommender_store import TABLES_METADATA
from converters.tflite.recommender_tables import row_chunks
from edge_deploy.core.errors import BadInput, VerificationFailed

__all__ = ["TableError", "check_tables"]

# Half a step, and what float32 arithmetic and the rounding of a float16 scale add to it.
LIMIT_STEPS = 0.502


@dataclass(frozen=True, slots=True, kw_only=True)
class TableError:
    """How far a written table is from its source.

    Attributes:
        steps: Largest error in units of the row's scale; of a float32 table, the largest absolute error; of a float16
            one in units of the distance to the next float16 number.
        weight_bytes: Bytes of its rows, without scales.
    """

    table: str
    storage: str
    steps: float
    weight_bytes: int


def check_tables(path: Path, model: Recommender, arrays: Mapping[str, np.ndarray]) -> tuple[TableError, ...]:
    """The error of every table in an emitted file.

    Raises:
        VerificationFailed: A row is more than half a step from its source; all such tables are named.
        BadInput: The file was not emitted by us, or does not hold these tables.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        reader = _Reader(path, np.frombuffer(mapped, np.uint8))
        try:
            errors = tuple(
                error for table in model.tables if not table.robe for error in _errors(reader, table, arrays)
            )
            shared = dict.fromkeys(table.weight for table in model.tables if table.robe)
            errors += tuple(reader.check_shared(name, arrays[name]) for name in shared)
        finally:
            reader.close()
    wrong = [error for error in errors if error.steps > (LIMIT_STEPS if error.storage != "float32" else 0)]
    if wrong:
        raise VerificationFailed(
            *(
                f"{path}: table {error.table} ({error.storage}): a row is {error.steps:.3f} steps from its source; "
                "half a step is the limit."
                for error in wrong
            )
        )
    return errors


def _errors(reader: _Reader, table: Table, arrays: Mapping[str, np.ndarray]) -> Iterator[TableError]:
    weight: Any = arrays[table.weight]
    if table.hot is None or f"{table.name}.hot" not in reader.notes:
        yield reader.check(table.name, weight)
        return
    hot = np.asarray(arrays[table.hot.ids])
    yield reader.check(table.name, ColdRows(weight, hot))
    yield reader.check(f"{table.name}.hot", np.asarray(weight[hot], np.float32))


class _Reader:
    """The tables of one mapped file."""

    def __init__(self, path: Path, data: np.ndarray) -> None:
        self.path, self.data = path, data
        self.model = schema().Model.GetRootAs(data.data, 0)
        self.graph = self.model.Subgraphs(0)
        self.tensors = {self.graph.Tensors(i).Name().decode(): i for i in range(self.graph.TensorsLength())}
        self.notes = {note["name"]: note for note in self._notes()}

    def close(self) -> None:
        """Let go of the mapped bytes."""
        del self.graph, self.model, self.data

    def _notes(self) -> list[dict[str, Any]]:
        for index in range(self.model.MetadataLength()):
            entry = self.model.Metadata(index)
            if entry.Name().decode() == TABLES_METADATA:
                found: list[dict[str, Any]] = json.loads(self._bytes(entry.Buffer()).tobytes())
                return found
        raise BadInput(f"{self.path}: has no note of its tables ({TABLES_METADATA}); it was not emitted by us.")

    def _bytes(self, buffer: int) -> np.ndarray:
        held = self.model.Buffers(buffer)
        if held.Offset() > 1:
            outside: np.ndarray = self.data[held.Offset() : held.Offset() + held.Size()]
            return outside
        inside: np.ndarray = held.DataAsNumpy()
        return inside

    def _constant(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            raise BadInput(f"{self.path}: has no tensor {name}.")
        return self._bytes(self.graph.Tensors(self.tensors[name]).Buffer())

    def check_shared(self, name: str, array: np.ndarray) -> TableError:
        """The same of an array that tables share; packed values are rows of two."""
        is_packed = self.notes.get(name, {}).get("storage") == "int4-table"
        return self.check(name, paired(array) if is_packed else array)

    def check(self, name: str, source: Any) -> TableError:
        if name not in self.notes:
            raise BadInput(f"{self.path}: holds no table {name}.")
        note = self.notes[name]
        tensor = self.graph.Tensors(self.tensors[note["tensor"]])
        rows, stored_dim = tensor.Shape(0), tensor.Shape(1)
        raw = self._bytes(tensor.Buffer())
        bytes_per_row = len(raw) // rows
        start, count = note["start"], note["rows"]
        if source.shape != (count, note["dim"]):
            raise BadInput(f"{self.path}: table {name} is {(count, note['dim'])}, its source {source.shape}.")
        worst, at = 0.0, start
        for chunk in row_chunks(source):
            stored = raw[at * bytes_per_row : (at + len(chunk)) * bytes_per_row].reshape(len(chunk), bytes_per_row)
            values = _widened(stored, note["storage"], stored_dim)[:, : chunk.shape[1]]
            scales = self._scales(note, tensor, at, len(chunk))
            error = np.abs(values * scales - chunk)
            if note["storage"] == "float16":
                scales = np.spacing(np.abs(chunk).astype(np.float16)).astype(np.float32)
            steps = error / scales if note["storage"] != "float32" else error
            worst = max(worst, float(steps.max(initial=0.0)))
            at += len(chunk)
        return TableError(table=name, storage=note["storage"], steps=worst, weight_bytes=count * bytes_per_row)

    def _scales(self, note: dict[str, Any], tensor: Any, at: int, count: int) -> np.ndarray:
        """Scale of each of `count` rows from row `at` on, [count, 1], or one for all [1, 1]."""
        storage = note["storage"]
        if storage in ("float32", "float16"):
            return np.ones((1, 1), np.float32)
        if storage == "int4-row":
            details = schema().BlockwiseQuantization()
            found = tensor.Quantization().Details()
            details.Init(found.Bytes, found.Pos)
            halves = self._bytes(self.graph.Tensors(details.Scales()).Buffer()).view(np.float16)
            return halves[at : at + count].astype(np.float32).reshape(-1, 1)
        own: np.ndarray = np.full(1, tensor.Quantization().Scale(0), np.float32)
        if note["row_scales"] is not None:
            own = own * self._constant(note["row_scales"]).view(np.float32)[at : at + count]
        elif note["table_scales"] is not None:
            # What the graph multiplies with, one factor for each id; all ids of a table have the same.
            factors = self._constant(note["table_scales"]).view(np.float32)
            own = own * factors[note["place"]]
        return np.asarray(own, np.float32).reshape(-1, 1)


def _widened(stored: np.ndarray, storage: str, stored_dim: int) -> np.ndarray:
    """Stored bytes of rows as float32 numbers [rows, stored_dim], before any scale."""
    if storage == "float32":
        return np.ascontiguousarray(stored).view(np.float32)
    if storage == "float16":
        return np.ascontiguousarray(stored).view(np.float16).astype(np.float32)
    if storage.startswith("int8"):
        return stored.view(np.int8).astype(np.float32)
    values = np.empty((len(stored), stored_dim), np.uint8)
    values[:, 0::2] = stored & 0x0F
    values[:, 1::2] = stored >> 4
    return (values ^ 8).astype(np.float32) - 8
