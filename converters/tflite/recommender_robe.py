"""Tables over a shared array (ROBE) in a TFLite file: the array is looked up element by element at computed places.

The hash is part of the graph: LiteRT multiplies, adds and takes remainders of 64-bit integers, in which no product of
it overflows. Packed 4-bit values are looked up in pairs, the rows of a byte, and the right one of the two is taken.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.recommender.resumable import Part, made_part
from converters.recommender.rows import row_chunks
from converters.tflite import emit_ops as ops
from converters.tflite.emit import Constant, Emitter, Graph
from converters.tflite.recommender_tables import Fused, quantize_rows, table_scale
from edge_deploy.core.robe import RobeHash

__all__ = ["elements", "paired", "shared_constant", "shared_scale"]

VALUES_AT_ONCE = 1 << 20


def shared_constant(emitter: Emitter, fused: Fused, array: np.ndarray) -> Constant:
    """The shared array [size, 1] in the storage of `fused`; two values a row where they are packed.

    Raises:
        AssertionError: `fused` is no shared array.
    """
    assert fused.robe is not None, "the caller asks for shared arrays only"
    shape = (fused.rows, fused.stored_dim)
    if fused.storage in ("float32", "float16"):
        kind = fused.storage
        return emitter.streamed(fused.name, shape, kind, lambda: _floats(array, kind))
    bits = 4 if fused.storage.startswith("int4") else 8
    scale = shared_scale(array, bits)
    return emitter.streamed(
        fused.name, shape, f"int{bits}", lambda: _integers(array, scale, bits), scale=np.array([scale], np.float32)
    )


def shared_scale(array: np.ndarray, bits: int) -> float:
    """The one scale of a shared array."""
    low = min((float(rows.min(initial=0.0)) for rows in row_chunks(array)), default=0.0)
    high = max((float(rows.max(initial=0.0)) for rows in row_chunks(array)), default=0.0)
    return table_scale(low, high, bits)


def paired(array: np.ndarray) -> np.ndarray:
    """[size, 1] as rows of two; one zero more where their number is odd."""
    flat = np.asarray(array, np.float32).reshape(-1)
    return np.append(flat, np.zeros(len(flat) % 2, np.float32)).reshape(-1, 2)


def _floats(array: np.ndarray, kind: str) -> Iterator[Part]:
    for start in range(0, len(array), VALUES_AT_ONCE):
        yield made_part(np.asarray(array[start : start + VALUES_AT_ONCE], kind).tobytes())


def _integers(array: np.ndarray, scale: float, bits: int) -> Iterator[Part]:
    for start in range(0, len(array), VALUES_AT_ONCE):
        rows = np.asarray(array[start : start + VALUES_AT_ONCE], np.float32)
        rows = paired(rows) if bits == 4 else rows
        scales = np.full(len(rows), scale, np.float32)
        yield made_part(quantize_rows(rows, scales, bits, rows.shape[1]).tobytes())


def elements(graph: Graph, ids: int, table: Constant, robe: RobeHash, name: str) -> int:
    """Rows [batch, ids, dim] of global ids int32 [batch, ids]."""
    batch, count = graph.shape(ids)
    slots = _slots(graph, ids, robe, name)
    total = batch * count * robe.dim
    flat = ops.reshape(graph, slots, (total,), f"{name}/slots/flat")
    if table.kind != "int4":
        found = ops.lookup(graph, flat, table, f"{name}/looked_up")
        return ops.reshape(graph, found, (batch, count, robe.dim), f"{name}/vectors")
    two = graph.values(f"{name}/two", np.array([2], np.int32))
    half = ops.arithmetic(graph, "FLOOR_DIV", flat, two, f"{name}/pair")
    odd = ops.arithmetic(graph, "FLOOR_MOD", flat, two, f"{name}/place_in_pair")
    zero = graph.values(f"{name}/zero", np.zeros(1, np.int32))
    is_second = ops.elementwise(graph, "NOT_EQUAL", odd, zero, f"{name}/is_second")
    pairs = ops.lookup(graph, half, table, f"{name}/looked_up")
    first = ops.reshape(graph, ops.gather(graph, pairs, [0], 1, f"{name}/first"), (total,), f"{name}/first/flat")
    second = ops.reshape(graph, ops.gather(graph, pairs, [1], 1, f"{name}/second"), (total,), f"{name}/second/flat")
    found = ops.select(graph, is_second, second, first, f"{name}/taken")
    return ops.reshape(graph, found, (batch, count, robe.dim), f"{name}/vectors")


def _slots(graph: Graph, ids: int, robe: RobeHash, name: str) -> int:
    """int32 [batch, ids, dim]: places in the array."""
    batch, count = graph.shape(ids)
    wide = ops.cast(graph, ids, "int64", f"{name}/wide")
    factor = graph.values(f"{name}/factor", np.array([robe.multipliers[2]], np.int64))
    mixed = ops.arithmetic(graph, "MUL", wide, factor, f"{name}/mixed")
    column = ops.reshape(graph, mixed, (batch, count, 1), f"{name}/mixed/column")
    shifts = graph.values(f"{name}/shifts", np.array(robe.shifts, np.int64))
    shifted = ops.arithmetic(graph, "ADD", column, shifts, f"{name}/shifted")
    prime = graph.values(f"{name}/prime", np.array([robe.prime], np.int64))
    places = graph.values(f"{name}/places", np.array([robe.places], np.int64))
    hashed = ops.arithmetic(graph, "FLOOR_MOD", shifted, prime, f"{name}/hashed")
    starts = ops.cast(
        graph, ops.arithmetic(graph, "FLOOR_MOD", hashed, places, f"{name}/in_array"), "int32", f"{name}/starts"
    )
    if robe.block == 1:
        return starts
    starts = ops.reshape(graph, starts, (batch, count * robe.blocks, 1), f"{name}/starts/column")
    inside = graph.values(f"{name}/inside", np.arange(robe.block, dtype=np.int32))
    slots = ops.arithmetic(graph, "ADD", starts, inside, f"{name}/slots")
    rows = ops.reshape(graph, slots, (batch, count, robe.blocks * robe.block), f"{name}/slots/rows")
    return ops.slice_block(graph, rows, (0, 0, 0), (batch, count, robe.dim), f"{name}/slots/cut")
