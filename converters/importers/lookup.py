"""Look-ups and matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.importers.build import Builder, Value
from converters.importers.tflite_read import Operator

__all__ = ["OPERATORS"]


def _embedding(op: Operator, build: Builder, ids: Value, table: int, shape: tuple[int, ...]) -> Value:
    """A look-up in a constant table, as the module that quantizers know."""
    from torch import nn

    rows, width = build.shape(table)
    module = nn.utils.skip_init(nn.Embedding, rows, width)
    module.weight = build.parameter(table, "table", lambda array: array)
    return build.emit(op.layer, module, [ids], shape=shape)


def _lookup(op: Operator, build: Builder) -> None:
    build.needed(op, 1, "table")
    shape = build.shape(op.outputs[0])
    if len(build.shape(op.inputs[1])) != 2:
        raise op.refuse(f"its table has the shape {build.shape(op.inputs[1])}, only [rows, width] is imported")
    made = _embedding(op, build, build.plain(op.inputs[0]), op.inputs[1], shape)
    build.set(op.outputs[0], made)


def _gather(op: Operator, build: Builder) -> None:
    if op.option("batchDims", 0):
        raise op.refuse("batch dimensions are not imported")
    shape = build.shape(op.outputs[0])
    table = build.constant(op.inputs[0])
    size = build.shape(op.inputs[0])
    axis = int(op.option("axis", 0)) % len(size)
    ids = build.plain(op.inputs[1])
    if table is not None and table.ndim == 2 and axis == 0 and ids.node is not None and table.dtype == np.float32:
        build.set(op.outputs[0], _embedding(op, build, ids, op.inputs[0], shape))
        return
    rank = len(ids.shape)

    def gather(x: Any, at: Any) -> Any:
        picked = x.index_select(axis, at.reshape(-1))
        return picked if rank == 1 else picked.reshape(*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])

    build.set(op.outputs[0], build.emit(op.layer, gather, [build.plain(op.inputs[0]), ids], shape=shape))


def _batch_matmul(op: Operator, build: Builder) -> None:
    turns = bool(op.option("adjX", False)), bool(op.option("adjY", False))

    def product(x: Any, y: Any) -> Any:
        x = x.transpose(-1, -2) if turns[0] else x
        y = y.transpose(-1, -2) if turns[1] else y
        return x @ y

    values = [build.plain(op.inputs[0]), build.plain(op.inputs[1])]
    build.set(op.outputs[0], build.emit(op.layer, product, values, shape=build.shape(op.outputs[0])))


OPERATORS = {"EMBEDDING_LOOKUP": _lookup, "GATHER": _gather, "BATCH_MATMUL": _batch_matmul}
"""How each operator is built."""
