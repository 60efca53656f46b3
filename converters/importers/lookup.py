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


def _gather_nd(op: Operator, build: Builder) -> None:
    """Picks out slices by constant indices, as `tf.gather_nd` and boolean masks of known values become."""
    import torch

    places = torch.from_numpy(build.needed(op, 1, "indices").astype(np.int64))
    depth, shape = places.shape[-1], build.shape(op.inputs[0])
    if depth == 0 or depth > len(shape):
        raise op.refuse(f"indices of {depth} axes into a tensor of {len(shape)}")
    index = places.reshape(-1, depth)
    # One axis is left, so that any backend takes the gather: the picked axes are one.
    strides = torch.tensor([int(np.prod(shape[axis + 1 : depth])) for axis in range(depth)])
    flat = (index * strides).sum(1)
    rest = shape[depth:]

    def pick(x: Any) -> Any:
        return x.reshape(-1, *rest).index_select(0, flat).reshape(*places.shape[:-1], *rest)

    build.set(op.outputs[0], build.emit(op.layer, pick, [build.plain(op.inputs[0])], shape=build.shape(op.outputs[0])))


def _batch_matmul(op: Operator, build: Builder) -> None:
    turns = bool(op.option("adjX", False)), bool(op.option("adjY", False))

    def product(x: Any, y: Any) -> Any:
        x = x.transpose(-1, -2) if turns[0] else x
        y = y.transpose(-1, -2) if turns[1] else y
        return x @ y

    values = [build.plain(op.inputs[0]), build.plain(op.inputs[1])]
    build.set(op.outputs[0], build.emit(op.layer, product, values, shape=build.shape(op.outputs[0])))


OPERATORS = {"EMBEDDING_LOOKUP": _lookup, "GATHER": _gather, "GATHER_ND": _gather_nd, "BATCH_MATMUL": _batch_matmul}
"""How each operator is built."""
