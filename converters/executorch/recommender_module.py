"""A recognised recommender as a torch module made of what ExecuTorch runs well.

Look-ups into tables of one width and precision become one: the ids are clamped into their tables (the quantized
kernels check nothing: a wrong id reads foreign memory or ends the process), moved by the first row of their table, and
looked up together. Tables are registered with two rows; the real ones take their place after quantization, so that
exporting never copies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.executorch.recommender_hot import (
    StackedHot,
    find,
    gather_hot,
    hot_buffers,
    wide_rows,
    with_hot_rows,
)
from converters.executorch.recommender_robe import constants, elements, first_ids, places_in
from converters.executorch.recommender_tables import StackedTables
from converters.recommender.model import Dense, Lookup, Recommender
from edge_deploy.core.require import require
from edge_deploy.core.robe import RobeHash

if TYPE_CHECKING:
    import torch

__all__ = ["Group", "build_module", "group_lookups", "padded_widths", "put_tables"]

STUB_ROWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Look-ups that are done together.

    Attributes:
        tables: Indices into the recommender's tables, in the order in which they are stacked.
        lookups: Indices into the recommender's look-ups, ascending.
        robe: Where the elements of rows stand in the one array that all of these tables share.
        hot_bits: Of rows that stay wide; 0 where there are none.
    """

    dim: int
    bits: int
    tables: tuple[int, ...]
    lookups: tuple[int, ...]
    robe: RobeHash | None = None
    hot_bits: int = 0


def group_lookups(model: Recommender, bits: Mapping[str, int]) -> tuple[Group, ...]:
    """Group by width, by bits and by shared array; `bits` is by table name."""
    members: dict[tuple[int, int, str, int], list[int]] = {}
    for index, lookup in enumerate(model.lookups):
        table = model.tables[lookup.table]
        shared = "" if table.robe is None else f"{table.weight} {table.robe.hash}"
        width, hot_bits = with_hot_rows(table, bits[table.name])
        members.setdefault((table.dim, width, shared, hot_bits), []).append(index)
    groups = []
    for (dim, width, _, hot_bits), indices in members.items():
        tables = tuple(dict.fromkeys(model.lookups[index].table for index in indices))
        robe = model.tables[tables[0]].robe
        groups.append(
            Group(
                dim=dim,
                bits=width,
                tables=tables,
                lookups=tuple(indices),
                robe=None if robe is None else robe.hash,
                hot_bits=hot_bits,
            )
        )
    return tuple(groups)


def padded_widths(layers: Sequence[Dense], bits: Mapping[str, int]) -> tuple[int, ...]:
    """Inputs of each layer as built: even at 4 bits, because XNNPACK computes garbage with an odd number of them."""
    return tuple(layer.in_features + (layer.in_features % 2 if bits[layer.name] == 4 else 0) for layer in layers)


def build_module(
    model: Recommender,
    arrays: Mapping[str, np.ndarray],
    groups: Sequence[Group],
    stacked: Sequence[StackedTables],
    bits: Mapping[str, int],
) -> torch.nn.Module:
    """A float module whose forward takes the inputs of `model` in their order; MLPs are not quantized yet.

    Args:
        stacked: The tables of each group.
        bits: By name of table or dense layer.

    Raises:
        MissingExtra: PyTorch or ExecuTorch is not installed.
    """
    torch = require("torch", extra="export-executorch")
    require("executorch.kernels.quantized", extra="export-executorch")  # brings embedding_byte and embedding_4bit
    require("executorch.exir.passes._quant_patterns_and_replacements", extra="export-executorch")  # and their shapes
    lookups = [
        _lookup_class(torch)(
            model, group, tables, gather_hot(model, arrays, group.tables, group.hot_bits) if group.hot_bits else None
        )
        for group, tables in zip(groups, stacked, strict=True)
    ]
    bottom = _mlp(torch, model.bottom, arrays, bits)
    top = _mlp(torch, model.top, arrays, bits)
    return _recommender_class(torch)(model, groups, lookups, bottom, top).eval()


def put_tables(module: Any, stacked: Sequence[StackedTables]) -> None:
    """Replace the two rows of every look-up of the module, or of a graph made of it, by the real ones."""
    torch = require("torch", extra="export-executorch")
    for index, tables in enumerate(stacked):
        owner = module.get_submodule(f"lookups.{index}")
        owner.rows = torch.from_numpy(np.ascontiguousarray(tables.stored))
        if tables.granularity == "row":
            owner.scales = torch.from_numpy(np.ascontiguousarray(tables.scales))


def _mlp(torch: Any, layers: Sequence[Dense], arrays: Mapping[str, np.ndarray], bits: Mapping[str, int]) -> Any:
    built = []
    for layer, width in zip(layers, padded_widths(layers, bits), strict=True):
        linear = torch.nn.Linear(width, layer.out_features, bias=layer.bias is not None)
        weight = np.zeros((layer.out_features, width), np.float32)
        weight[:, : layer.in_features] = arrays[layer.weight]
        linear.weight = torch.nn.Parameter(torch.from_numpy(weight), requires_grad=False)
        if layer.bias is not None:
            bias = torch.from_numpy(np.array(arrays[layer.bias], np.float32))
            linear.bias = torch.nn.Parameter(bias, requires_grad=False)
        built.append(_dense_class(torch)(linear, width - layer.in_features, layer.activation))
    return torch.nn.Sequential(*built)


def _dense_class(torch: Any) -> Any:
    class PaddedDense(torch.nn.Module):  # type: ignore[misc]
        """A fully connected layer whose input is padded with zeros."""

        def __init__(self, linear: Any, padding: int, activation: str) -> None:
            super().__init__()
            self.linear, self.padding, self.activation = linear, padding, activation

        def forward(self, x: Any) -> Any:
            if self.padding:
                x = torch.cat([x, x.new_zeros((x.shape[0], self.padding))], dim=1)
            y = self.linear(x)
            return y if self.activation == "none" else getattr(torch, self.activation)(y)

    return PaddedDense


def _lookup_class(torch: Any) -> Any:
    operators = torch.ops.quantized_decomposed

    class GroupLookup(torch.nn.Module):  # type: ignore[misc]
        """Vectors [batch, look-ups, dim] of one group."""

        def __init__(self, model: Recommender, group: Group, tables: StackedTables, hot: StackedHot | None) -> None:
            super().__init__()
            self.lookups = [model.lookups[index] for index in group.lookups]
            self.dim, self.bits, self.granularity = group.dim, tables.bits, tables.granularity
            place = {table: at for at, table in enumerate(group.tables)}
            owner = [place[lookup.table] for lookup in self.lookups for _ in range(lookup.length)]
            rows = [model.tables[group.tables[at]].rows for at in owner]
            starts = [tables.offsets[at] for at in owner] if group.robe is None else first_ids(model, group, owner)
            self.hot = hot
            if hot is not None:
                starts = [hot.starts[at] for at in owner]
                for name, value in hot_buffers(torch, hot).items():
                    self.register_buffer(name, value)
            self.moved = any(starts)
            self.register_buffer("last", torch.tensor([[count - 1 for count in rows]], dtype=torch.int64))
            self.register_buffer("start", torch.tensor([starts], dtype=torch.int64))
            self.robe = group.robe
            # Any id may lead anywhere in a shared array, so that it is there from the beginning.
            stub = tables.stored[:STUB_ROWS] if group.robe is None else tables.stored
            self.register_buffer("rows", torch.from_numpy(stub.copy()))
            if group.robe is not None:
                for name, value in constants(torch, group.robe).items():
                    self.register_buffer(name, value)
                self.scale = float(tables.scales[0]) if tables.scales.size else 1.0
                return
            if self.granularity == "row":
                self.register_buffer("scales", torch.from_numpy(tables.scales[:STUB_ROWS].copy()))
            elif self.granularity == "table":
                scale = torch.from_numpy(tables.scales[owner].copy())
                self.register_buffer("table_scales", scale.reshape(1, -1, 1))

        def forward(self, inputs: Any) -> Any:
            read = [_columns(inputs[name], flip, a, b) for name, flip, a, b in _runs(self.lookups)]
            ids = _joined(torch, [part.to(torch.int64) for part in read])
            safe = torch.minimum(ids.clamp(min=0), self.last)
            moved = safe + self.start if self.moved else safe
            if self.hot is None:
                found = self._rows(moved)
            else:
                is_hot, hot, cold = find(torch, moved, self)
                found = torch.where(is_hot, wide_rows(torch, hot, self), self._rows(cold))
            if all(_is_plain(lookup) for lookup in self.lookups):
                return found
            vectors, at = [], 0
            for lookup in self.lookups:
                own = slice(at, at + lookup.length)
                vectors.append(self._pooled(lookup, found[:, own], ids[:, own], inputs))
                at += lookup.length
            return torch.cat(vectors, dim=1)

        def _rows(self, ids: Any) -> Any:
            if self.robe is not None:
                slots = places_in(torch, ids, self, self.dim)
                return elements(torch, slots, self.rows, bits=self.bits, scale=self.scale)
            if self.bits == 32:
                return torch.nn.functional.embedding(ids, self.rows)
            if self.granularity == "row" and self.bits == 8:
                found = operators.embedding_byte.dtype(
                    self.rows, self.scales, None, -128, 127, ids, dtype=torch.float32
                )
                return self._cut(found) if self.dim == 1 else found
            if self.granularity == "row":
                found = operators.embedding_4bit.dtype(self.rows, self.scales, None, -8, 7, ids, dtype=torch.float32)
                return self._cut(found)
            found = torch.nn.functional.embedding(ids, self.rows)
            if self.bits == 8:
                return found.to(torch.float32) * self.table_scales
            halves = [torch.bitwise_right_shift(found, 4), torch.bitwise_and(found, 15)]
            whole = self._cut(torch.stack(halves, dim=-1).flatten(-2))
            return (whole.to(torch.float32) - 8.0) * self.table_scales

        def _cut(self, found: Any) -> Any:
            """Without the column that makes the width of 4-bit rows even, or a row of one value two."""
            return found[:, :, : self.dim] if self.dim % 2 else found

        def _pooled(self, lookup: Lookup, found: Any, ids: Any, inputs: Any) -> Any:
            """[batch, 1, dim] out of [batch, length, dim]."""
            if _is_plain(lookup):
                return found
            counted = torch.ones_like(found[:, :, 0])
            if lookup.padding_index is not None:
                counted = (ids != lookup.padding_index).to(torch.float32)
            weights = counted
            if lookup.weights_input is not None:
                weights = counted * _columns(inputs[lookup.weights_input], False, 0, lookup.length)
            vector = torch.bmm(weights.unsqueeze(1), found)
            if lookup.pooling == "mean":
                vector = vector / counted.sum(dim=1, keepdim=True).clamp(min=1.0).unsqueeze(1)
            return vector

    return GroupLookup


def _recommender_class(torch: Any) -> Any:
    class RecommenderModule(torch.nn.Module):  # type: ignore[misc]
        """Bottom MLP, look-ups, interaction, top MLP."""

        def __init__(self, model: Recommender, groups: Sequence[Group], lookups: Any, bottom: Any, top: Any) -> None:
            super().__init__()
            self.names = [info.name for info in model.inputs]
            self.model = model
            self.lookups, self.bottom, self.top = torch.nn.ModuleList(lookups), bottom, top
            self.place = {index: (g, at) for g, group in enumerate(groups) for at, index in enumerate(group.lookups)}
            inter = model.interaction
            if inter.kind == "dot":
                count = len(inter.vectors)
                pairs = torch.tensor([a * count + b for a, b in inter.pairs], dtype=torch.int64)
                self.register_buffer("pairs", pairs)

        def forward(self, *values: Any) -> Any:
            inputs = dict(zip(self.names, values, strict=True))
            model, inter = self.model, self.model.interaction
            base = None
            if model.dense_input is not None and model.bottom:
                base = self.bottom(_flat(inputs[model.dense_input]))
            vectors = [lookup(inputs) for lookup in self.lookups]
            pairs = self._pairs(base, vectors) if inter.kind == "dot" else None
            parts: list[Any] = []
            waiting: list[int] = []
            for name in (*inter.top_inputs, ""):
                kind, _, which = name.partition(":")
                if kind == "lookup":
                    waiting.append(int(which))
                    continue
                parts += [part.flatten(1) for part in self._slices(waiting, vectors)]
                waiting = []
                if kind == "dense":
                    parts.append(_flat(inputs[which]))
                elif kind:
                    parts.append(base if kind == "bottom" else pairs)
            score = self.top(_joined(torch, parts))
            if model.output_activation != "none":
                score = getattr(torch, model.output_activation)(score)
            shape = model.output.shape[1:]
            return score if tuple(shape) == (1,) else score.reshape((score.shape[0], *shape))

        def _pairs(self, base: Any, vectors: Any) -> Any:
            parts: list[Any] = []
            waiting: list[int] = []
            for index in self.model.interaction.vectors:
                if index >= 0:
                    waiting.append(index)
                    continue
                parts += [*self._slices(waiting, vectors), base.unsqueeze(1)]
                waiting = []
            parts += self._slices(waiting, vectors)
            rows = _joined(torch, parts)
            products = torch.bmm(rows, rows.transpose(1, 2)).flatten(1)
            return torch.index_select(products, 1, self.pairs)

        def _slices(self, indices: list[int], vectors: Any) -> list[Any]:
            """The vectors of these look-ups, neighbours of one group in one slice."""
            found: list[tuple[int, int, int]] = []
            for index in indices:
                group, at = self.place[index]
                if found and found[-1][0] == group and found[-1][2] == at:
                    found[-1] = (group, found[-1][1], at + 1)
                else:
                    found.append((group, at, at + 1))
            return [
                vectors[g] if (a, b) == (0, len(self.lookups[g].lookups)) else vectors[g][:, a:b] for g, a, b in found
            ]

    return RecommenderModule


def _is_plain(lookup: Lookup) -> bool:
    return lookup.length == 1 and lookup.padding_index is None and lookup.weights_input is None


def _runs(lookups: Sequence[Lookup]) -> list[tuple[str, bool, int, int]]:
    """Columns to read, as (input, columns first, from, to), neighbours joined."""
    runs: list[tuple[str, bool, int, int]] = []
    for lookup in lookups:
        start, stop = lookup.column, lookup.column + lookup.length
        if runs and runs[-1][:2] == (lookup.input, lookup.columns_first) and runs[-1][3] == start:
            runs[-1] = (*runs[-1][:3], stop)
        else:
            runs.append((lookup.input, lookup.columns_first, start, stop))
    return runs


def _columns(value: Any, columns_first: bool, start: int, stop: int) -> Any:
    whole = value.transpose(0, 1) if columns_first and value.dim() == 2 else _flat(value)
    return whole if (start, stop) == (0, whole.shape[1]) else whole[:, start:stop]


def _flat(value: Any) -> Any:
    return value.unsqueeze(1) if value.dim() == 1 else value.flatten(1) if value.dim() > 2 else value


def _joined(torch: Any, parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
