"""A recommender as a hybrid graph for phones: clamped ids, one look-up a fused table, float or dynamic-INT8 MLPs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.recommender.model import Dense, Lookup, Recommender
from converters.tflite import emit_ops as ops
from converters.tflite.emit import Constant, Emitter, Graph
from converters.tflite.recommender_columns import TopColumns
from converters.tflite.recommender_hot import find
from converters.tflite.recommender_robe import elements
from converters.tflite.recommender_store import StoredTables

__all__ = ["Fully", "add_hybrid_graph", "signature_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fully:
    """Weight and bias of a fully connected layer in the file; `widens` where narrow weights become float32 first."""

    weight: Constant
    bias: Constant
    widens: bool = False


def signature_key(batch: int, batches: tuple[int, ...]) -> str:
    """Name of the signature for a batch size, as files of other routes name theirs."""
    return "serving_default" if len(batches) == 1 else f"batch_{batch}"


def add_hybrid_graph(
    emitter: Emitter,
    model: Recommender,
    stored: tuple[StoredTables, ...],
    layers: Mapping[str, Fully],
    columns: TopColumns,
    *,
    batch: int,
    key: str,
) -> None:
    """Add the subgraph for one batch size, callable under `key`.

    Args:
        layers: By name of the Dense; the first top layer's columns stand in the order of `columns`.
    """
    _Hybrid(emitter.graph(key), model, stored, layers, columns, batch).build(key)


class _Hybrid:
    def __init__(
        self,
        graph: Graph,
        model: Recommender,
        stored: tuple[StoredTables, ...],
        layers: Mapping[str, Fully],
        columns: TopColumns,
        batch: int,
    ) -> None:
        self.graph, self.model, self.stored, self.layers, self.batch = graph, model, stored, layers, batch
        self.columns = columns

    def build(self, key: str) -> None:
        graph, model = self.graph, self.model
        inputs = {info.name: self._input(info.name) for info in model.inputs}
        ids = {
            name: self._id_columns(name, inputs[name]) for name in dict.fromkeys(each.input for each in model.lookups)
        }
        # Look-ups first: the delegate takes its turns in the order of the file, and can then run the bottom MLP and the
        # interaction in one turn instead of two.
        vectors = [self._looked_up(place, ids, inputs) for place in range(len(self.stored))]
        bottom = None
        if model.dense_input is not None and model.bottom:
            bottom = self._flat(inputs[model.dense_input], model.dense_input)
            for dense in model.bottom:
                bottom = self._dense(bottom, dense)
        parts = []
        for part in self.columns.parts:
            if part.kind == "bottom":
                assert bottom is not None
                parts.append(bottom)
            elif part.kind == "pairs":
                parts.append(self._pairs(bottom, vectors))
            elif part.kind == "dense":
                parts.append(self._flat(inputs[part.input], part.input))
            else:
                taken = ops.gather(graph, vectors[part.group], part.rows, 1, f"top_vectors.{part.group}")
                count, dim = len(part.rows), self.stored[part.group].fused.dim
                parts.append(ops.reshape(graph, taken, (self.batch, count * dim), f"top_vectors.{part.group}/flat"))
        x = ops.concatenate(graph, parts, 1, "top_input")
        for dense in model.top:
            x = self._dense(x, dense)
        x = self._activated(x, model.output_activation, "output_activation")
        shape = (self.batch, *model.output.shape[1:]) if model.output.shape else ()
        x = ops.reshape(graph, x, shape, "output_shape")
        graph.sign(key, inputs, {model.output.name: x})

    def _input(self, name: str) -> int:
        info = next(info for info in self.model.inputs if info.name == name)
        shape = list(info.shape)
        last = any(lookup.columns_first for lookup in self.model.lookups if lookup.input == name)
        shape[-1 if last else 0] = self.batch
        return self.graph.tensor(name, tuple(shape), "float32" if info.dtype.startswith("float") else "int32")

    def _flat(self, x: int, name: str) -> int:
        width = math.prod(self.graph.shape(x)) // self.batch
        return ops.reshape(self.graph, x, (self.batch, width), f"{name}/flat")

    def _id_columns(self, name: str, x: int) -> int:
        """The ids of an input as [batch, columns]."""
        lookup = next(lookup for lookup in self.model.lookups if lookup.input == name)
        if not lookup.columns_first:
            return self._flat(x, name)
        width = math.prod(self.graph.shape(x)) // self.batch
        folded = ops.reshape(self.graph, x, (width, self.batch), f"{name}/columns")
        if width == 1 or self.batch == 1:
            return ops.reshape(self.graph, folded, (self.batch, width), f"{name}/rows")
        return ops.transpose(self.graph, folded, (1, 0), f"{name}/rows")

    def _looked_up(self, place: int, ids: Mapping[str, int], inputs: Mapping[str, int]) -> int:
        """The pooled vectors [batch, look-ups, dim] of one fused table."""
        graph, entry = self.graph, self.stored[place]
        fused, name = entry.fused, entry.fused.name
        lookups = [self.model.lookups[number] for number in self.columns.groups[place]]
        raw = self._picked(ids, lookups, f"{name}/ids")
        rows = np.concatenate([np.full(each.length, self.model.tables[each.table].rows) for each in lookups])
        starts = np.concatenate([np.full(each.length, fused.start_of(each.table)) for each in lookups]).astype(np.int32)
        at = ops.clamp_ids(graph, raw, rows, f"{name}/ids")
        if starts.any():
            at = ops.elementwise(
                graph, "ADD", at, ops.like_ids(graph, at, f"{name}/ids/starts", starts), f"{name}/rows"
            )
        total = len(rows)
        if fused.robe is not None:
            vectors = elements(graph, at, entry.table, fused.robe, name)
            return self._pooled(vectors, raw, lookups, inputs, name)
        flat = ops.reshape(graph, at, (self.batch * total,), f"{name}/rows/flat")
        place_of = None if entry.hot is None else find(graph, flat, entry.hot, f"{name}/directory")
        flat = flat if place_of is None else place_of.cold
        found = ops.lookup(graph, flat, entry.table, f"{name}/looked_up")
        if entry.row_scales is not None:
            scales = ops.lookup(graph, flat, entry.row_scales, f"{name}/looked_up_scales")
            found = ops.elementwise(graph, "MUL", found, scales, f"{name}/scaled")
        vectors = ops.reshape(graph, found, (self.batch, total, fused.stored_dim), f"{name}/vectors")
        if entry.table_scales is not None:
            order = [fused.tables.index(each.table) for each in lookups for _ in range(each.length)]
            factors = np.array(entry.table_scales, np.float32)[order].reshape(total, 1)
            vectors = ops.elementwise(graph, "MUL", vectors, graph.values(f"{name}/factors", factors), f"{name}/scaled")
        if fused.stored_dim != fused.dim:
            vectors = ops.gather(graph, vectors, range(fused.dim), 2, f"{name}/unpadded")
        if place_of is not None and entry.hot is not None:
            wide = ops.lookup(graph, place_of.hot, entry.hot.rows, f"{name}/looked_up_hot")
            cold = ops.reshape(graph, vectors, (self.batch * total, fused.dim), f"{name}/cold")
            either = ops.select(graph, place_of.is_hot, wide, cold, f"{name}/either")
            vectors = ops.reshape(graph, either, (self.batch, total, fused.dim), f"{name}/hot_or_cold")
        return self._pooled(vectors, raw, lookups, inputs, name)

    def _picked(self, ids: Mapping[str, int], lookups: list[Lookup], name: str) -> int:
        """The columns of all ids that the look-ups read, one look-up after the other."""
        used = list(dict.fromkeys(lookup.input for lookup in lookups))
        start, starts = 0, {}
        for key in used:
            starts[key] = start
            start += self.graph.shape(ids[key])[1]
        joined = ops.concatenate(self.graph, [ids[key] for key in used], 1, f"{name}/joined")
        columns = [starts[each.input] + each.column + step for each in lookups for step in range(each.length)]
        return ops.gather(self.graph, joined, columns, 1, f"{name}/picked")

    def _pooled(self, vectors: int, raw: int, lookups: list[Lookup], inputs: Mapping[str, int], name: str) -> int:
        """Vectors of single ids [batch, ids, dim] pooled to [batch, look-ups, dim]."""
        if all(lookup.pooling == "none" for lookup in lookups):
            return vectors
        graph, batch = self.graph, self.batch
        lengths = [lookup.length for lookup in lookups]
        total, count = sum(lengths), len(lookups)
        owner = np.repeat(np.arange(count), lengths)
        member = (owner[:, None] == np.arange(count)).astype(np.float32)  # [ids, look-ups]
        kept = self._kept(raw, lookups, name)
        weights = self._weights(kept, lookups, inputs, name)
        dim = graph.shape(vectors)[2]
        if weights is not None:
            column = ops.reshape(graph, weights, (batch, total, 1), f"{name}/weights/column")
            vectors = ops.elementwise(graph, "MUL", vectors, column, f"{name}/weighted")
        fixed = np.array(
            [1 / each.length if each.pooling == "mean" and each.padding_index is None else 1 for each in lookups]
        )
        if len(set(lengths)) == 1 and lengths[0] > 1:
            # Bags of one length: a plain sum, which every kernel has in float.
            bags = ops.reshape(graph, vectors, (batch, count, lengths[0], dim), f"{name}/bags")
            pooled = ops.reduce_sum(graph, bags, 2, f"{name}/summed")
            if (fixed != 1).any():
                factors = graph.values(f"{name}/mean", fixed.astype(np.float32).reshape(count, 1))
                pooled = ops.elementwise(graph, "MUL", pooled, factors, f"{name}/averaged")
        else:
            averaging = np.broadcast_to((member * fixed.astype(np.float32)).T, (batch, count, total))
            across = ops.transpose(graph, vectors, (0, 2, 1), f"{name}/across")
            pooled = ops.dot_products(graph, graph.values(f"{name}/members", averaging), across, f"{name}/pooled")
        if kept is not None and any(each.pooling == "mean" and each.padding_index is not None for each in lookups):
            pooled = self._divided(pooled, kept, member, lookups, name)
        return pooled

    def _kept(self, raw: int, lookups: list[Lookup], name: str) -> int | None:
        """1 for each id that enters its pool, 0 for padding; None when all do."""
        if all(lookup.padding_index is None for lookup in lookups):
            return None
        # An id is never the smallest integer, so a look-up without padding keeps all of its ids.
        none = np.iinfo(np.int32).min
        padding = [
            none if each.padding_index is None else each.padding_index for each in lookups for _ in range(each.length)
        ]
        at = self.graph.values(f"{name}/padding", np.array(padding, np.int32))
        differs = ops.elementwise(self.graph, "NOT_EQUAL", raw, at, f"{name}/is_kept")
        return ops.cast_float(self.graph, differs, f"{name}/kept")

    def _weights(self, kept: int | None, lookups: list[Lookup], inputs: Mapping[str, int], name: str) -> int | None:
        if all(lookup.weights_input is None for lookup in lookups):
            return kept
        parts = []
        for number, lookup in enumerate(lookups):
            if lookup.weights_input is None:
                parts.append(
                    self.graph.values(f"{name}/one.{number}", np.ones((self.batch, lookup.length), np.float32))
                )
            else:
                parts.append(self._flat(inputs[lookup.weights_input], lookup.weights_input))
        given = ops.concatenate(self.graph, parts, 1, f"{name}/weights")
        return given if kept is None else ops.elementwise(self.graph, "MUL", given, kept, f"{name}/kept_weights")

    def _divided(self, pooled: int, kept: int, member: np.ndarray, lookups: list[Lookup], name: str) -> int:
        """Sums divided by the number of ids that are no padding, where a mean over them is asked; by 1 elsewhere."""
        graph, count = self.graph, len(lookups)
        counted = np.array([each.pooling == "mean" and each.padding_index is not None for each in lookups], np.float32)
        counts = Fully(
            weight=graph.emitter.constant(f"{name}/counted", np.ascontiguousarray((member * counted).T)),
            bias=graph.emitter.constant(f"{name}/uncounted", 1 - counted),
        )
        sizes = ops.fully_connected(graph, kept, counts.weight, counts.bias, f"{name}/counts")
        one = graph.values(f"{name}/one", np.ones(1, np.float32))
        sizes = ops.elementwise(graph, "MAXIMUM", sizes, one, f"{name}/sizes")
        column = ops.reshape(graph, sizes, (self.batch, count, 1), f"{name}/sizes/column")
        return ops.elementwise(graph, "DIV", pooled, column, f"{name}/averaged_kept")

    def _pairs(self, bottom: int | None, vectors: list[int]) -> int:
        graph, dot = self.graph, self.columns.dot
        assert dot is not None
        parts = []
        if dot.with_bottom:
            assert bottom is not None
            parts.append(ops.reshape(graph, bottom, (self.batch, 1, graph.shape(bottom)[1]), "bottom/vector"))
        for group, rows in dot.rows:
            parts.append(ops.gather(graph, vectors[group], rows, 1, f"dot_vectors.{group}"))
        together = ops.concatenate(graph, parts, 1, "vectors")
        count = graph.shape(together)[1]
        products = ops.dot_products(graph, together, together, "interaction")
        flat = ops.reshape(graph, products, (self.batch, count * count), "interaction/flat")
        if dot.band is None:
            return ops.gather(graph, flat, [a * count + b for a, b in dot.pairs], 1, "pairs")
        batch, high, width = self.batch, count - 1, dot.band.width
        cut = ops.slice_block(graph, flat, (0, 0), (batch, high * (count + 1)), "interaction/cut")
        skewed = ops.reshape(graph, cut, (batch, high, count + 1), "interaction/skewed")
        band = ops.slice_block(graph, skewed, (0, 0, 1), (batch, high, width), "interaction/band")
        return ops.reshape(graph, band, (batch, high * width), "pairs")

    def _dense(self, x: int, dense: Dense) -> int:
        layer = self.layers[dense.name]
        relu = dense.activation == "relu"
        y = ops.fully_connected(self.graph, x, layer.weight, layer.bias, dense.name, relu=relu, widens=layer.widens)
        return y if relu else self._activated(y, dense.activation, f"{dense.name}/{dense.activation}")

    def _activated(self, x: int, activation: str, name: str) -> int:
        if activation in ("sigmoid", "tanh"):
            return ops.unary(self.graph, "LOGISTIC" if activation == "sigmoid" else "TANH", x, name)
        if activation == "relu":
            return ops.relu(self.graph, x, name)
        return x
