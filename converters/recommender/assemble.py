"""Turn a structure in terms of labels into a `Recommender`: names, tables, look-ups, columns in an order of our own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from converters.recommender.hashed import HashedRows, array_name
from converters.recommender.interpret import NotUnderstood
from converters.recommender.match import Layer, Matched, Vector
from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table
from converters.recommender.pooled import Pooled
from edge_deploy.core.tensor import TensorInfo

__all__ = ["assemble"]

ANY_ID = 2**31 - 1  # bound of an id column that no look-up reads


def assemble(
    matched: Matched,
    *,
    inputs: tuple[TensorInfo, ...],
    shapes: list[tuple[int, ...]],
    batch: int,
    output_shape: tuple[int, ...],
) -> tuple[Recommender, dict[str, np.ndarray]]:
    """The recommender and its arrays.

    Raises:
        NotUnderstood: Something in the structure has no place in a `Recommender`.
    """
    return _Assembly(matched=matched, inputs=inputs, shapes=shapes, batch=batch).build(output_shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assembly:
    matched: Matched
    inputs: tuple[TensorInfo, ...]
    shapes: list[tuple[int, ...]]
    batch: int

    def build(self, output_shape: tuple[int, ...]) -> tuple[Recommender, dict[str, np.ndarray]]:
        arrays: dict[str, np.ndarray] = {}
        pools = self._pools()
        if not pools:
            raise NotUnderstood("no look-up")
        tables, table_of = self._tables(pools, arrays)
        lookups = {pool: self._lookup(pool, table_of[pool]) for pool in pools}
        order = sorted(pools, key=lambda pool: (self._input_number(lookups[pool]), lookups[pool].column))
        number = {pool: index for index, pool in enumerate(order)}
        interaction, positions = self._interaction(number)
        top = list(self.matched.top)
        width = self._width(interaction, number)
        top[0] = replace(top[0], weight=_scatter(top[0].weight, positions, width))
        bottom, dense_input = self._bottom()
        names: set[str] = set(arrays)
        below = tuple(_dense(layer, f"bottom.{i}", names, arrays) for i, layer in enumerate(bottom))
        above = tuple(_dense(layer, f"top.{i}", names, arrays) for i, layer in enumerate(top))
        found = [lookups[pool] for pool in order]
        meaning = "probability" if self.matched.output_activation == "sigmoid" else "logit"
        dynamic = any(-1 in info.shape for info in self.inputs)
        shape = (-1 if dynamic else self.batch, *output_shape[1:]) if output_shape else ()
        model = Recommender(
            inputs=tuple(self._with_bounds(info, i, found, tables) for i, info in enumerate(self.inputs)),
            output=TensorInfo(name="output", shape=shape, dtype="float32", meaning=cast(Any, meaning)),
            tables=tuple(tables),
            lookups=tuple(found),
            interaction=interaction,
            top=above,
            bottom=below,
            dense_input=dense_input,
            output_activation=self.matched.output_activation,
        )
        return model, arrays

    def _pools(self) -> list[Pooled]:
        pools: dict[Pooled, None] = {}
        for column in self.matched.columns:
            sources = column if isinstance(column, tuple) else (column.source,)
            pools |= {source: None for source in sources if isinstance(source, Pooled)}
        return list(pools)

    def _tables(self, pools: list[Pooled], arrays: dict[str, np.ndarray]) -> tuple[list[Table], dict[Pooled, int]]:
        """One table for each tensor, or for each field of a tensor that fields share by offsets."""
        offsets: dict[int, list[int]] = {}
        for pool in pools:
            offsets[pool.table] = sorted({*offsets.get(pool.table, []), pool.offset})
        tables: list[Table] = []
        numbers: dict[tuple[int, int], int] = {}
        names: set[str] = set()
        result: dict[Pooled, int] = {}
        for pool in sorted(pools, key=lambda p: min(p.ids)):
            key = (pool.table, pool.offset)
            if key not in numbers:
                starts = offsets[pool.table]
                place = starts.index(pool.offset)
                end = starts[place + 1] if place + 1 < len(starts) else pool.rows
                if not 0 <= pool.offset < end <= pool.rows:
                    raise NotUnderstood("offsets outside their table")
                base = pool.name.removesuffix(".weight")
                name = _fresh(f"{base}.{place}" if len(starts) > 1 else base, names)
                numbers[key] = len(tables)
                if isinstance(pool.tensor, HashedRows):
                    tables.append(_hashed(pool, name, arrays))
                    result[pool] = numbers[key]
                    continue
                weight = pool.tensor.detach().float().numpy()[pool.offset : end]
                arrays[f"{name}.table"] = weight
                tables.append(Table(name=name, rows=len(weight), dim=pool.dim, weight=f"{name}.table"))
            result[pool] = numbers[key]
        return tables, result

    def _lookup(self, pool: Pooled, table: int) -> Lookup:
        numbers = {number for number, _ in pool.ids}
        if len(numbers) != 1:
            raise NotUnderstood("a look-up over several inputs")
        number = numbers.pop()
        columns_first, columns = self._sample_columns(number, [place for _, place in pool.ids])
        # Sums do not depend on the order of the ids; weights must follow theirs.
        ordered = sorted(columns)
        if ordered != list(range(ordered[0], ordered[0] + len(ordered))):
            raise NotUnderstood("a look-up over columns that are not neighbours")
        weights_input = None
        if pool.weights:
            weights_number = pool.weights[0][0]
            _, at = self._sample_columns(weights_number, [place for _, place in pool.weights])
            shift = {column - weight for column, weight in zip(columns, at, strict=True)}
            if len({n for n, _ in pool.weights}) != 1 or shift != {ordered[0]}:
                raise NotUnderstood("weights in another order than their ids")
            weights_input = self.inputs[weights_number].name
        pooling = pool.pooling
        if pooling == "sum" and len(columns) == 1 and pool.padding_index is None and weights_input is None:
            pooling = "none"
        return Lookup(
            table=table,
            input=self.inputs[number].name,
            column=ordered[0],
            length=len(columns),
            columns_first=columns_first,
            pooling=cast(Any, pooling),
            padding_index=pool.padding_index,
            weights_input=weights_input,
        )

    def _sample_columns(self, number: int, places: list[int]) -> tuple[bool, list[int]]:
        """Whether the input has its batch last, and the columns of the first sample at these places in memory."""
        shape = self.shapes[number]
        width = math.prod(shape) // self.batch
        used = self._used_places(number)
        if shape and shape[0] == self.batch and all(place < width for place in used):
            return False, places
        if len(shape) > 1 and shape[-1] == self.batch and all(place % self.batch == 0 for place in used):
            return True, [place // self.batch for place in places]
        raise NotUnderstood("an input without a batch dimension")

    def _used_places(self, number: int) -> set[int]:
        """Every element of the input that the first sample reads: one of them alone could lie in either layout."""
        elements = {element for pool in self._pools() for element in (*pool.ids, *pool.weights)}
        elements |= set(self.matched.bottom_columns)
        for column in self.matched.columns:
            if isinstance(column, Vector) and isinstance(column.source, int):
                elements.add((column.source, column.component))
        return {place for index, place in elements if index == number}

    def _input_number(self, lookup: Lookup) -> int:
        return next(i for i, info in enumerate(self.inputs) if info.name == lookup.input)

    def _interaction(self, number: dict[Pooled, int]) -> tuple[Interaction, list[int]]:
        """The interaction, and for each column of the matched first top layer its place in our order."""
        pairs: dict[tuple[int, int], int] = {}
        parts: dict[str, int] = {}
        for column in self.matched.columns:
            if isinstance(column, tuple):
                ends = [-1 if isinstance(end, str) else number[end] for end in column]
                pairs.setdefault((max(ends), min(ends)), len(pairs))
                parts.setdefault("pairs", 0)
            else:
                parts.setdefault(self._part(column, number), 0)
        kind = "dot" if pairs else "concat"
        vectors = tuple(sorted({end for pair in pairs for end in pair}))
        at = {vector: place for place, vector in enumerate(vectors)}
        start = 0
        for part in parts:
            parts[part] = start
            start += len(pairs) if part == "pairs" else self._part_width(part, number)
        positions = []
        for column in self.matched.columns:
            if isinstance(column, tuple):
                ends = [-1 if isinstance(end, str) else number[end] for end in column]
                positions.append(parts["pairs"] + pairs[(max(ends), min(ends))])
            else:
                component = column.component
                if isinstance(column.source, int):
                    _, (component,) = self._sample_columns(column.source, [component])
                positions.append(parts[self._part(column, number)] + component)
        named = tuple((at[a], at[b]) for a, b in pairs)
        return Interaction(kind=cast(Any, kind), top_inputs=tuple(parts), vectors=vectors, pairs=named), positions

    def _part(self, column: Vector, number: dict[Pooled, int]) -> str:
        if isinstance(column.source, Pooled):
            return f"lookup:{number[column.source]}"
        if isinstance(column.source, int):
            return f"dense:{self.inputs[column.source].name}"
        return "bottom"

    def _part_width(self, part: str, number: dict[Pooled, int]) -> int:
        kind, _, which = part.partition(":")
        if kind == "lookup":
            return next(pool.dim for pool, index in number.items() if index == int(which))
        if kind == "dense":
            index = next(i for i, info in enumerate(self.inputs) if info.name == which)
            return math.prod(self.shapes[index]) // self.batch
        return len(self.matched.bottom[-1].bias)

    def _width(self, interaction: Interaction, number: dict[Pooled, int]) -> int:
        return sum(
            len(interaction.pairs) if part == "pairs" else self._part_width(part, number)
            for part in interaction.top_inputs
        )

    def _bottom(self) -> tuple[list[Layer], str | None]:
        bottom = list(self.matched.bottom)
        if not bottom:
            return [], None
        numbers = {number for number, _ in self.matched.bottom_columns}
        if len(numbers) != 1:
            raise NotUnderstood("a bottom MLP over several inputs")
        index = numbers.pop()
        _, columns = self._sample_columns(index, [place for _, place in self.matched.bottom_columns])
        width = math.prod(self.shapes[index]) // self.batch
        bottom[0] = replace(bottom[0], weight=_scatter(bottom[0].weight, columns, width))
        return bottom, self.inputs[index].name

    def _with_bounds(self, info: TensorInfo, index: int, lookups: list[Lookup], tables: list[Table]) -> TensorInfo:
        """The input with the rows behind each of its id columns, where the shape has one axis of columns."""
        own = [lookup for lookup in lookups if lookup.input == info.name]
        if not own or len(self.shapes[index]) > 2:
            return info
        bounds = [ANY_ID] * (math.prod(self.shapes[index]) // self.batch)
        for lookup in own:
            for column in range(lookup.column, lookup.column + lookup.length):
                bounds[column] = min(bounds[column], tables[lookup.table].rows)
        return replace(info, id_bounds=tuple(bounds))


def _hashed(pool: Pooled, name: str, arrays: dict[str, np.ndarray]) -> Table:
    """A table over a shared array; its look-ups may not add offsets of their own."""
    if pool.offset:
        raise NotUnderstood("offsets into a table over a shared array")
    robe = pool.tensor.table
    return Table(name=name, rows=pool.rows, dim=pool.dim, weight=array_name(pool.tensor, arrays), robe=robe)


def _scatter(weight: np.ndarray, positions: list[int], width: int) -> np.ndarray:
    """Columns of `weight` at `positions` among `width`; columns that meet add up, others are zero."""
    if positions == list(range(width)):
        return weight
    moved = np.zeros((weight.shape[0], width))
    np.add.at(moved.T, positions, weight.T)
    return moved


def _fresh(name: str, taken: set[str]) -> str:
    name = name.replace("/", ".")
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _dense(layer: Layer, default: str, names: set[str], arrays: dict[str, np.ndarray]) -> Dense:
    name = _fresh(layer.name or default, names)
    arrays[f"{name}.weight"] = layer.weight.astype(np.float32)
    bias = None
    if layer.bias.any():
        bias = f"{name}.bias"
        arrays[bias] = layer.bias.astype(np.float32)
    return Dense(
        name=name,
        weight=f"{name}.weight",
        in_features=layer.weight.shape[1],
        out_features=layer.weight.shape[0],
        bias=bias,
        activation=layer.activation,
    )
