"""A recommender in float and as its tables and layers were quantized, table by table, computed in NumPy.

Tables that a file stores as one are told apart here. Fully connected layers read values that are rounded to 8 bits with
a scale for each sample, as both formats' kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from converters.debugger.contracts import Arrays, Seen, Site
from converters.executorch.recommender_tables import dequantized as dequantized_rows
from converters.executorch.recommender_tables import stack_tables
from converters.quantize.uniform import dequantize, quantize_symmetric, symmetric_scales
from converters.recommender.model import Dense, Lookup, Recommender
from converters.recommender.reference import apply_dense, looked_up, trace_reference
from converters.tflite.recommender_tables import row_scales, table_scale

__all__ = ["RecommenderRig"]

_LEVELS = 255  # of an asymmetric 8-bit value


class RecommenderRig:
    """See `converters.debugger.contracts.Rig`."""

    method = "tables and layers quantized again as the manifest says and computed in NumPy"

    def __init__(
        self,
        model: Recommender,
        arrays: Mapping[str, np.ndarray],
        bits: Mapping[str, int],
        *,
        table_scale: Literal["row", "table"],
        target: str,
        samples: int,
    ) -> None:
        """Take a model apart.

        Args:
            bits: Of each table's and layer's weights: 32, 16, 8 or 4.
            target: "tflite" or "executorch"; they round rows by different scales.
            samples: In one call.
        """
        self._model, self._arrays, self._bits, self._table_scale = model, arrays, bits, table_scale
        self._target = target
        self.batch = samples
        self._weights = {
            dense.name: _rounded_weight(np.asarray(arrays[dense.weight]), bits.get(dense.name, 32), target)
            for dense in (*model.bottom, *model.top)
        }
        self.sites = (
            *(Site(layer=dense.name, op="linear", kind="layer", dtype="float32") for dense in model.bottom),
            *(Site(layer=table.name, op="embedding", kind="layer", dtype="float32") for table in model.tables),
            *(Site(layer=dense.name, op="linear", kind="layer", dtype="float32") for dense in model.top),
        )

    def see(self, feeds: Arrays) -> Seen:
        """Run the model in float and quantized; layers are compared before their activation."""
        batch = self._samples(feeds)
        read: dict[str, np.ndarray] = {}

        def reading(x: np.ndarray, dense: Dense, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
            read[dense.name] = x
            return apply_dense(x, dense, arrays)

        want = self._values(self._trace(feeds, batch, reading, looked_up), batch)
        got = self._values(self._trace(feeds, batch, self._dense, self._looked_up), batch)
        own_got = {table.name: got[table.name] for table in self._model.tables}
        for dense in (*self._model.bottom, *self._model.top):
            own_got[dense.name] = self._dense(read[dense.name], dense, self._arrays).astype(np.float64)
        return Seen(want=want, got=got, own_want=want, own_got=own_got)

    def answer(self, feeds: Arrays, errors: Arrays) -> np.ndarray:
        """The float model's output with errors added to look-ups and layers."""
        batch = self._samples(feeds)
        waiting = {name: list(np.moveaxis(value, 1, 0)) for name, value in errors.items() if self._is_table(name)}

        def layer(x: np.ndarray, dense: Dense, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
            result = apply_dense(x, dense, arrays)
            found: np.ndarray = result + errors[dense.name] if dense.name in errors else result
            return found

        def rows(model: Recommender, lookup: Lookup, *rest: object, batch: int) -> np.ndarray:
            result = looked_up(model, lookup, *rest, batch=batch)  # type: ignore[arg-type]  # passed through as given
            name = model.tables[lookup.table].name
            found: np.ndarray = result + waiting[name].pop(0) if name in waiting else result
            return found

        trace = self._trace(feeds, batch, layer, rows)
        found: np.ndarray = trace["output"].reshape(batch, -1).astype(np.float64)
        return found

    def _samples(self, feeds: Arrays) -> int:
        return len(next(iter(feeds.values())))

    def _trace(
        self, feeds: Arrays, batch: int, layer: Callable[..., np.ndarray], rows: Callable[..., np.ndarray]
    ) -> dict[str, np.ndarray]:
        shaped = dict(feeds)
        for lookup in self._model.lookups:
            if lookup.columns_first and lookup.input in feeds:
                values = feeds[lookup.input]  # samples first: here as the model takes a batch
                shaped[lookup.input] = np.moveaxis(values.reshape(batch, -1), 0, -1)
        return trace_reference(self._model, self._arrays, shaped, batch=batch, layer=layer, rows=rows)

    def _values(self, trace: Mapping[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        """By site: layers before their activation; all vectors that a table gives, [batch, look-ups, dim]."""
        found = {
            dense.name: trace[f"{dense.name}/linear"].astype(np.float64)
            for dense in (*self._model.bottom, *self._model.top)
        }
        for number, table in enumerate(self._model.tables):
            own = [trace[f"lookup:{k}"] for k, lookup in enumerate(self._model.lookups) if lookup.table == number]
            found[table.name] = np.stack(own, axis=1).astype(np.float64) if own else np.zeros((batch, 0, table.dim))
        return found

    def _is_table(self, name: str) -> bool:
        return any(table.name == name for table in self._model.tables)

    def _dense(self, x: np.ndarray, dense: Dense, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        if self._bits.get(dense.name, 32) < 16:
            x = _rounded_rows(x)
        result = x @ self._weights[dense.name].T
        found: np.ndarray = result if dense.bias is None else result + arrays[dense.bias]
        return found

    def _looked_up(
        self,
        model: Recommender,
        lookup: Lookup,
        arrays: Mapping[str, np.ndarray],
        feeds: Mapping[str, np.ndarray],
        *,
        batch: int,
    ) -> np.ndarray:
        table = model.tables[lookup.table]
        bits = self._bits.get(table.name, 32)
        rounded = _Rows(
            arrays[table.weight],
            bits,
            whole=self._table_scale == "table" or table.robe is not None,
            target=self._target,
            hot=np.zeros(0, np.int64) if table.hot is None else np.asarray(arrays[table.hot.ids]),
        )
        return looked_up(model, lookup, {table.weight: rounded}, feeds, batch=batch)  # type: ignore[dict-item]  # indexed only


class _Rows:
    """A table whose rows are rounded when they are read."""

    def __init__(self, table: np.ndarray, bits: int, *, whole: bool, target: str, hot: np.ndarray) -> None:
        self._table, self._bits, self._target, self._hot = table, bits, target, hot
        self._scale = 0.0  # of the whole table; 0 where each row has its own
        if whole and bits < 16 and target == "tflite":
            self._scale = table_scale(float(table.min()), float(table.max()), bits)
        elif whole and bits < 16:
            self._scale = float(np.abs(table).max()) / (2 ** (bits - 1) - 0.5) or 1.0

    def __getitem__(self, ids: Any) -> np.ndarray:
        """Rows [*ids, dim], or values where `ids` also names a column."""
        rows = np.asarray(self._table[ids], np.float32)
        if not len(self._hot):
            return self._rounded(rows)
        return np.where(np.isin(ids, self._hot)[..., None], rows, self._rounded(rows))

    def _rounded(self, rows: np.ndarray) -> np.ndarray:
        if self._bits >= 16:
            return rows.astype(np.float16).astype(np.float32) if self._bits == 16 else rows
        flat = rows.reshape(-1, rows.shape[-1])
        if self._target == "executorch" and not self._scale:
            stacked = stack_tables([flat], bits=self._bits, scale="row")
            return dequantized_rows(stacked, 0, 0, len(flat))[0].reshape(rows.shape)
        scales = np.full(len(flat), self._scale, np.float32) if self._scale else row_scales(flat, self._bits)
        steps = scales.astype(np.float32).reshape(-1, 1)
        low, high = (-127, 127) if self._bits == 8 else (-8, 7)
        found: np.ndarray = (np.clip(np.rint(flat / steps), low, high) * steps).reshape(rows.shape)
        return found


def _rounded_weight(weight: np.ndarray, bits: int, target: str) -> np.ndarray:
    if bits == 32:
        return weight
    if bits == 16:
        return weight.astype(np.float16).astype(np.float32)
    if bits == 4 and target == "executorch":  # PT2E: fifteen steps over twice the largest magnitude, the top clipped
        largest = np.abs(weight).max(axis=1)
        scales = np.where(largest > 0, largest / 7.5, 1.0).astype(np.float32)
        stored = quantize_symmetric(weight, scales, axis=0, bits=bits)
    else:
        scales = symmetric_scales(weight, axis=0, bits=bits, narrow=True)
        stored = quantize_symmetric(weight, scales, axis=0, bits=bits, narrow=True)
    found: np.ndarray = dequantize(stored, scales.reshape(-1, 1)).astype(np.float32)
    return found


def _rounded_rows(x: np.ndarray) -> np.ndarray:
    """Values with an asymmetric 8-bit scale for each row, which holds zero."""
    low, high = np.minimum(x.min(1, keepdims=True), 0), np.maximum(x.max(1, keepdims=True), 0)
    steps = np.maximum((high - low) / _LEVELS, np.float32(1e-12))
    zero = np.rint(-low / steps)
    found: np.ndarray = (np.clip(np.rint(x / steps) + zero, 0, _LEVELS) - zero) * steps
    return found
