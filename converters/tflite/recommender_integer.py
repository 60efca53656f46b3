"""A recommender as a full-integer graph for microcontrollers: a gather a table, INT8 everywhere, the logit as output.

TFLite Micro has no look-up in fused INT4 tables, takes ten inputs to a concatenation, and needs all of them in one
scale; so every table keeps its own scale and its vectors are requantized where they meet. An INT8 probability would
resolve 1/256 only, so the final sigmoid is left to the application.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.quantize.ranges import Range
from converters.quantize.uniform import Affine, affine_from_range, quantize_symmetric, symmetric_scales
from converters.recommender.model import Dense, Lookup, Recommender
from converters.tflite import emit_ops as ops
from converters.tflite.emit import Constant, Emitter, Graph

__all__ = ["StoredTable", "add_integer_graph"]

LARGEST_BIAS = 2**30  # of an int32 bias, with room for the sum of products


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """A table of its own in the file, and the scale its values have; None in a float file."""

    table: Constant
    scale: Affine | None


def add_integer_graph(
    emitter: Emitter,
    model: Recommender,
    arrays: Mapping[str, np.ndarray],
    tables: tuple[StoredTable, ...],
    ranges: Mapping[str, Range] | None,
    *,
    batch: int,
    key: str,
    integer_io: bool = False,
) -> None:
    """Add the subgraph for one batch size, callable under `key`.

    Args:
        tables: One for each table of the model.
        ranges: Of the values that `trace_reference` names, and of dense inputs by their name; None makes it float.
        integer_io: Dense inputs and the output are INT8.
    """
    _Integer(emitter.graph(key), model, arrays, tables, ranges, batch).build(key, integer_io=integer_io)


class _Integer:
    def __init__(
        self,
        graph: Graph,
        model: Recommender,
        arrays: Mapping[str, np.ndarray],
        tables: tuple[StoredTable, ...],
        ranges: Mapping[str, Range] | None,
        batch: int,
    ) -> None:
        self.graph, self.model, self.arrays, self.tables, self.batch = graph, model, arrays, tables, batch
        self.ranges = ranges
        self.dense: dict[str, int] = {}

    def build(self, key: str, *, integer_io: bool) -> None:
        graph, model = self.graph, self.model
        inputs = {info.name: self._input(info.name, integer_io=integer_io) for info in model.inputs}
        ids = {name: self._clamped(name, inputs[name]) for name in dict.fromkeys(x.input for x in model.lookups)}
        inter = model.interaction
        vectors_scale = self._scale([self._source(k) for k in inter.vectors])
        top_scale = self._scale([self._part_source(part) for part in inter.top_inputs])
        bottom = None
        if model.dense_input is not None and model.bottom:
            x = self._dense_values(inputs[model.dense_input], model.dense_input)
            for dense in model.bottom:
                last = dense is model.bottom[-1]
                meeting = vectors_scale if -1 in inter.vectors else top_scale
                x = self._dense(x, dense, meeting if last else None)
            bottom = x
        vectors = {k: self._looked_up(k, ids) for k in range(len(model.lookups))}
        parts = []
        for part in inter.top_inputs:
            kind, _, which = part.partition(":")
            if part == "pairs":
                made = self._pairs(bottom, vectors, vectors_scale, top_scale)
            elif part == "bottom":
                assert bottom is not None
                made = bottom
            elif kind == "dense":
                made = self._dense_values(inputs[which], which)
            else:
                made = vectors[int(which)]
            width = math.prod(graph.shape(made)) // self.batch
            made = ops.reshape(graph, made, (self.batch, width), f"{part}/flat")
            parts.append(ops.requantize(graph, made, top_scale, f"{part}/top"))
        x = ops.concatenate(graph, parts, 1, "top_input")
        for dense in model.top:
            x = self._dense(x, dense, None)
        if model.output_activation in ("tanh", "relu"):
            x = self._activated(x, model.output_activation, "output_activation")
        shape = (self.batch, *model.output.shape[1:]) if model.output.shape else ()
        x = ops.reshape(graph, x, shape, "logit")
        if not integer_io:
            x = ops.dequantize(graph, x, "logit/float")
        graph.sign(key, inputs, {model.output.name: x})

    def _affine(self, name: str) -> Affine | None:
        return None if self.ranges is None else _of(self.ranges[name])

    def _scale(self, names: list[str]) -> Affine | None:
        """One scale for values that meet in one tensor."""
        if self.ranges is None or not names:
            return None
        together = self.ranges[names[0]]
        for name in names[1:]:
            together = together.union(self.ranges[name])
        return _of(together)

    def _source(self, vector: int) -> str:
        return self.model.bottom[-1].name if vector < 0 else f"lookup:{vector}"

    def _part_source(self, part: str) -> str:
        return self.model.bottom[-1].name if part == "bottom" else part.removeprefix("dense:")

    def _input(self, name: str, *, integer_io: bool) -> int:
        info = next(info for info in self.model.inputs if info.name == name)
        shape = list(info.shape)
        last = any(lookup.columns_first for lookup in self.model.lookups if lookup.input == name)
        shape[-1 if last else 0] = self.batch
        if not info.dtype.startswith("float"):
            return self.graph.tensor(name, tuple(shape), "int32")
        return ops.activation(self.graph, name, tuple(shape), self._affine(name) if integer_io else None)

    def _dense_values(self, x: int, name: str) -> int:
        """A dense input as [batch, features] in its own scale."""
        if name not in self.dense:
            width = math.prod(self.graph.shape(x)) // self.batch
            quantized = ops.requantize(self.graph, x, self._affine(name), f"{name}/quantized")
            self.dense[name] = ops.reshape(self.graph, quantized, (self.batch, width), f"{name}/flat")
        return self.dense[name]

    def _clamped(self, name: str, x: int) -> int:
        """The ids of an input as [batch, columns], within the table of each column."""
        graph = self.graph
        width = math.prod(graph.shape(x)) // self.batch
        lookups = [lookup for lookup in self.model.lookups if lookup.input == name]
        if lookups[0].columns_first and width > 1 and self.batch > 1:
            folded = ops.reshape(graph, x, (width, self.batch), f"{name}/columns")
            x = ops.transpose(graph, folded, (1, 0), f"{name}/rows")
        x = ops.reshape(graph, x, (self.batch, width), f"{name}/flat")
        rows = np.full(width, np.iinfo(np.int32).max, np.int64)
        for lookup in lookups:
            columns = slice(lookup.column, lookup.column + lookup.length)
            rows[columns] = np.minimum(rows[columns], self.model.tables[lookup.table].rows)
        return ops.clamp_ids(graph, x, rows, name)

    def _looked_up(self, number: int, ids: Mapping[str, int]) -> int:
        """The pooled vector of one look-up, [batch, 1, dim]."""
        graph, lookup = self.graph, self.model.lookups[number]
        stored = self.tables[lookup.table]
        at = ops.slice_columns(graph, ids[lookup.input], lookup.column, lookup.length, f"lookup:{number}/ids")
        rows = ops.rows_of(graph, stored.table, at, f"lookup:{number}/rows", stored.scale)
        return rows if lookup.pooling == "none" else self._pooled(number, rows, lookup)

    def _pooled(self, number: int, rows: int, lookup: Lookup) -> int:
        """Sum or mean as a product with a row of equal numbers: INT8 sums are wrong in the reference kernel."""
        graph, length = self.graph, lookup.length
        value = 1.0 if lookup.pooling == "sum" else 1.0 / length
        name = f"lookup:{number}"
        across = ops.transpose(graph, rows, (0, 2, 1), f"{name}/across")
        if self.ranges is None:
            factors = graph.values(f"{name}/factors", np.full((self.batch, 1, length), value, np.float32))
            return ops.dot_products(graph, factors, across, name)
        stored = np.full((self.batch, 1, length), 127, np.int8)
        constant = graph.emitter.constant(f"{name}/factors", stored, scale=np.array([value / 127], np.float32))
        return ops.dot_products(graph, graph.use(constant), across, name, quantized=self._affine(name))

    def _pairs(
        self, bottom: int | None, vectors: Mapping[int, int], scale: Affine | None, top_scale: Affine | None
    ) -> int:
        graph, inter = self.graph, self.model.interaction
        parts = []
        for k in inter.vectors:
            if k < 0:
                assert bottom is not None
                dim = graph.shape(bottom)[1]
                parts.append(ops.reshape(graph, bottom, (self.batch, 1, dim), "bottom/vector"))
            else:
                parts.append(vectors[k])
        parts = [ops.requantize(graph, part, scale, f"vector:{place}/requantized") for place, part in enumerate(parts)]
        together = ops.concatenate(graph, parts, 1, "vectors")
        count = len(inter.vectors)
        # Products that no pair asks for, such as a vector's with itself, may saturate: nobody reads them.
        products = ops.dot_products(graph, together, together, "interaction", quantized=top_scale)
        flat = ops.reshape(graph, products, (self.batch, count * count), "interaction/flat")
        return ops.gather(graph, flat, [a * count + b for a, b in inter.pairs], 1, "pairs")

    def _dense(self, x: int, dense: Dense, wanted: Affine | None) -> int:
        """One layer; its output has scale `wanted`, or its own where that is None."""
        graph = self.graph
        weight = np.asarray(self.arrays[dense.weight], np.float32)
        bias = np.zeros(len(weight), np.float32) if dense.bias is None else np.asarray(self.arrays[dense.bias])
        relu = dense.activation == "relu"
        if self.ranges is None:
            held = graph.emitter.constant(f"{dense.name}.weight", weight)
            added = graph.emitter.constant(f"{dense.name}.bias", bias.astype(np.float32))
            y = ops.fully_connected(graph, x, held, added, dense.name, relu=relu)
            return y if relu else self._activated(y, dense.activation, f"{dense.name}/{dense.activation}")
        entering = ops.quantization(graph, x)
        assert entering is not None
        floor = np.abs(bias.astype(np.float64)) / (entering.scale * LARGEST_BIAS)
        scales = symmetric_scales(weight, axis=0, bits=8, floor=floor)
        values = quantize_symmetric(weight, scales, axis=0, bits=8)
        bias_scales = (scales.astype(np.float64) * entering.scale).astype(np.float32)
        stored_bias = np.rint(bias / bias_scales.astype(np.float64)).astype(np.int32)
        held = graph.emitter.constant(f"{dense.name}.weight", values, scale=scales)
        added = graph.emitter.constant(f"{dense.name}.bias", stored_bias, scale=bias_scales)
        plain = dense.activation in ("none", "relu")
        out = wanted if wanted is not None and plain else self._affine(dense.name if plain else f"{dense.name}/linear")
        y = ops.fully_connected(graph, x, held, added, dense.name, relu=relu, quantized=out)
        return y if plain else self._activated(y, dense.activation, f"{dense.name}/{dense.activation}")

    def _activated(self, x: int, activation: str, name: str) -> int:
        if activation in ("sigmoid", "tanh"):
            return ops.unary(self.graph, "LOGISTIC" if activation == "sigmoid" else "TANH", x, name)
        if activation == "relu":
            return ops.relu(self.graph, x, name)
        return x


def _of(found: Range) -> Affine:
    return affine_from_range(found.low, found.high)
