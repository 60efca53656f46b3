"""Hot and cold rows in a TFLite file: a directory finds each row among the wide ones or among those of few bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converters.recommender.hot_rows import BLOCK, GROUP, PLACES, build_directory
from converters.recommender.model import Recommender
from converters.recommender.resumable import Part, made_part
from converters.tflite import emit_ops as ops
from converters.tflite.emit import Constant, Emitter, Graph
from converters.tflite.recommender_tables import Fused

__all__ = ["Found", "StoredHot", "find", "hot_ids", "store_hot"]

ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHot:
    """What a fused table has beside its cold rows.

    Attributes:
        rows: float16 or float32 [hot, dim].
        groups, blocks: The directory, see `converters.recommender.hot_rows`.
        places: What a byte of the directory says of each of its rows; the same for all.
    """

    rows: Constant
    groups: Constant
    blocks: Constant
    places: Constant
    cold: int

    @property
    def hot(self) -> int:
        """Number of hot rows."""
        return self.rows.shape[0]

    @property
    def bytes(self) -> int:
        """Of hot rows and directory in the file."""
        itemsize = 2 if self.rows.kind == "float16" else 4
        return int(np.prod(self.rows.shape)) * itemsize + int(np.prod(self.groups.shape)) + 4 * self.blocks.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Tensors of a subgraph: bool [n, 1], and int32 [n] places among hot and among cold rows, both always in range."""

    is_hot: int
    hot: int
    cold: int


def hot_ids(model: Recommender, arrays: Mapping[str, np.ndarray], table: int) -> np.ndarray:
    """The hot rows of a table, ascending."""
    hot = model.tables[table].hot
    return np.zeros(0, np.int64) if hot is None else np.asarray(arrays[hot.ids], np.int64)


def store_hot(emitter: Emitter, model: Recommender, arrays: Mapping[str, np.ndarray], fused: Fused) -> StoredHot:
    """The hot rows and the directory of a fused table."""
    ids = [hot_ids(model, arrays, number) for number in fused.tables]
    weights = [arrays[model.tables[number].weight] for number in fused.tables]
    total = sum(model.tables[number].rows for number in fused.tables)
    moved = np.concatenate([own + start for own, start in zip(ids, fused.starts, strict=True)])
    made = build_directory(moved, total)
    kind = f"float{fused.hot_bits}"
    return StoredHot(
        rows=emitter.streamed(f"{fused.name}.hot", (made.hot, fused.dim), kind, lambda: _gathered(weights, ids, kind)),
        groups=_constant(emitter, f"{fused.name}.directory", made.groups),
        blocks=_constant(emitter, f"{fused.name}.directory.blocks", made.blocks),
        places=emitter.constant("directory_places", PLACES),
        cold=total - made.hot,
    )


def _constant(emitter: Emitter, name: str, values: np.ndarray) -> Constant:
    return emitter.streamed(name, values.shape, str(values.dtype), lambda: [made_part(values.tobytes())])


def _gathered(weights: Sequence[np.ndarray], ids: Sequence[np.ndarray], kind: str) -> Iterator[Part]:
    for weight, own in zip(weights, ids, strict=True):
        for start in range(0, len(own), ROWS_AT_ONCE):
            yield made_part(np.asarray(weight[own[start : start + ROWS_AT_ONCE]], kind).tobytes())


def find(graph: Graph, rows: int, stored: StoredHot, name: str) -> Found:
    """Where rows int32 [n] of a fused table stand."""
    group, place = _divided(graph, rows, GROUP, f"{name}/group")
    block, _ = _divided(graph, rows, BLOCK, f"{name}/block", remainder=False)
    held = _pair(graph, stored.groups, group, f"{name}/held")
    eight = graph.values(f"{name}/group/size", np.array([GROUP], np.int32))
    entry = ops.arithmetic(graph, "MUL", held[0], eight, f"{name}/entry/first")
    entry = ops.arithmetic(graph, "ADD", entry, place, f"{name}/entry")
    is_set, inside = _pair(graph, stored.places, entry, f"{name}/places")
    before = _gather(graph, stored.blocks, block, f"{name}/before")
    before = ops.reshape(graph, before, graph.shape(rows), f"{name}/before/flat")
    rank = ops.arithmetic(graph, "ADD", before, held[1], f"{name}/rank/group")
    rank = ops.arithmetic(graph, "ADD", rank, inside, f"{name}/rank")
    others = ops.arithmetic(graph, "SUB", rows, rank, f"{name}/others")
    zero = graph.values(f"{name}/zero", np.zeros(1, np.int32))
    is_hot = ops.elementwise(graph, "NOT_EQUAL", is_set, zero, f"{name}/is_hot")
    return Found(
        is_hot=ops.reshape(graph, is_hot, (*graph.shape(rows), 1), f"{name}/is_hot/column"),
        hot=_at_most(graph, rank, stored.hot - 1, f"{name}/hot_row"),
        cold=_at_most(graph, others, max(stored.cold - 1, 0), f"{name}/cold_row"),
    )


def _divided(graph: Graph, x: int, by: int, name: str, *, remainder: bool = True) -> tuple[int, int]:
    divisor = graph.values(f"{name}/size", np.array([by], np.int32))
    whole = ops.arithmetic(graph, "FLOOR_DIV", x, divisor, name)
    return whole, ops.arithmetic(graph, "FLOOR_MOD", x, divisor, f"{name}/place") if remainder else whole


def _gather(graph: Graph, table: Constant, rows: int, name: str) -> int:
    out = graph.tensor(name, (*graph.shape(rows), table.shape[1]), table.kind)
    graph.op("GATHER", [graph.use(table), rows], [out], "GatherOptions", axis=0)
    return out


def _pair(graph: Graph, table: Constant, rows: int, name: str) -> tuple[int, int]:
    """Both columns of a uint8 table at these rows, as int32 [n]."""
    both = ops.cast(graph, _gather(graph, table, rows, name), "int32", f"{name}/wide")
    first, second = (
        ops.reshape(graph, ops.gather(graph, both, [k], 1, f"{name}.{k}"), graph.shape(rows), f"{name}.{k}/flat")
        for k in (0, 1)
    )
    return first, second


def _at_most(graph: Graph, x: int, most: int, name: str) -> int:
    limit = ops.like_ids(graph, x, f"{name}/last", np.array([most], np.int32))
    return ops.elementwise(graph, "MINIMUM", x, limit, name)
