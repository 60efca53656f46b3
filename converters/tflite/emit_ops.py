"""The operators that an emitted recommender consists of, with the versions the TFLite registry asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from converters.quantize.uniform import Affine
from converters.tflite.emit import Constant, Graph
from converters.tflite.flatbuffer import schema

__all__ = [
    "LARGEST_CONCATENATION",
    "activation",
    "arithmetic",
    "cast",
    "cast_float",
    "clamp_ids",
    "concatenate",
    "dequantize",
    "dot_products",
    "elementwise",
    "fully_connected",
    "gather",
    "like_ids",
    "lookup",
    "quantization",
    "reduce_sum",
    "requantize",
    "relu",
    "reshape",
    "rows_of",
    "select",
    "slice_block",
    "slice_columns",
    "transpose",
    "unary",
]

FIXED = {"LOGISTIC": Affine(scale=1 / 256, zero_point=-128), "TANH": Affine(scale=1 / 128, zero_point=0)}
LARGEST_CONCATENATION = 10  # inputs that TFLite Micro's kernel takes
LARGEST_LIKE_IDS = 1 << 14  # values; beyond it the constants would show in the size of the file


def reshape(graph: Graph, x: int, shape: Sequence[int], name: str) -> int:
    """`x` in another shape; itself where that is its shape."""
    if graph.shape(x) == tuple(shape):
        return x
    sizes = np.array(shape, np.int32)
    out = _like(graph, x, name, tuple(shape))
    graph.op("RESHAPE", [x, graph.values(f"{name}/shape", sizes)], [out], "ReshapeOptions", newShape=sizes)
    return out


def _like(graph: Graph, x: int, name: str, shape: tuple[int, ...]) -> int:
    """A tensor of `x`'s type and quantization."""
    out = graph.tensor(name, shape)
    source = graph.subgraph.tensors[x]
    graph.subgraph.tensors[out].type = source.type
    graph.subgraph.tensors[out].quantization = source.quantization
    return out


def _is_int8(graph: Graph, x: int) -> bool:
    return bool(graph.kind(x) == schema().TensorType.INT8)


def concatenate(graph: Graph, parts: Sequence[int], axis: int, name: str) -> int:
    """The parts joined along `axis`, at most ten at a time."""
    parts = list(parts)
    level = 0
    while len(parts) > LARGEST_CONCATENATION:
        level += 1
        groups = [parts[i : i + LARGEST_CONCATENATION] for i in range(0, len(parts), LARGEST_CONCATENATION)]
        parts = [_join(graph, group, axis, f"{name}/{level}.{i}") for i, group in enumerate(groups)]
    return _join(graph, parts, axis, name)


def _join(graph: Graph, parts: list[int], axis: int, name: str) -> int:
    if len(parts) == 1:
        return parts[0]
    shape = list(graph.shape(parts[0]))
    shape[axis] = sum(graph.shape(part)[axis] for part in parts)
    out = _like(graph, parts[0], name, tuple(shape))
    version = 2 if _is_int8(graph, out) else 1
    graph.op("CONCATENATION", parts, [out], "ConcatenationOptions", version=version, axis=axis)
    return out


def gather(graph: Graph, x: int, positions: Sequence[int], axis: int, name: str) -> int:
    """The slices of `x` at known positions along `axis`."""
    if list(positions) == list(range(graph.shape(x)[axis])):
        return x
    shape = list(graph.shape(x))
    shape[axis] = len(positions)
    out = _like(graph, x, name, tuple(shape))
    at = graph.values(f"{name}/positions", np.array(positions, np.int32))
    graph.op("GATHER", [x, at], [out], "GatherOptions", version=2 if _is_int8(graph, x) else 1, axis=axis)
    return out


def transpose(graph: Graph, x: int, order: Sequence[int], name: str) -> int:
    """`x` with its axes in another order."""
    out = _like(graph, x, name, tuple(graph.shape(x)[axis] for axis in order))
    at = graph.values(f"{name}/order", np.array(order, np.int32))
    graph.op("TRANSPOSE", [x, at], [out], "TransposeOptions")
    return out


def elementwise(graph: Graph, op: str, x: int, y: int, name: str) -> int:
    """MAXIMUM, MINIMUM, ADD, MUL, DIV or NOT_EQUAL with broadcasting of `y` to `x`."""
    options = {
        "MAXIMUM": "MaximumMinimumOptions",
        "MINIMUM": "MaximumMinimumOptions",
        "ADD": "AddOptions",
        "MUL": "MulOptions",
        "DIV": "DivOptions",
        "NOT_EQUAL": "NotEqualOptions",
    }[op]
    shape = np.broadcast_shapes(graph.shape(x), graph.shape(y))
    out = graph.tensor(name, shape, "bool") if op == "NOT_EQUAL" else _like(graph, x, name, shape)
    graph.op(op, [x, y], [out], options)
    return out


def arithmetic(graph: Graph, op: str, x: int, y: int, name: str) -> int:
    """ADD, SUB, MUL, FLOOR_DIV or FLOOR_MOD of integers with broadcasting, in `x`'s type."""
    options = {
        "ADD": "AddOptions",
        "SUB": "SubOptions",
        "MUL": "MulOptions",
        "FLOOR_DIV": "FloorDivOptions",
        "FLOOR_MOD": "FloorModOptions",
    }[op]
    out = _like(graph, x, name, np.broadcast_shapes(graph.shape(x), graph.shape(y)))
    graph.op(op, [x, y], [out], options)
    return out


def select(graph: Graph, condition: int, x: int, y: int, name: str) -> int:
    """`x` where the bool tensor is true, else `y`, with broadcasting."""
    shape = np.broadcast_shapes(graph.shape(condition), graph.shape(x), graph.shape(y))
    out = _like(graph, x, name, shape)
    graph.op("SELECT_V2", [condition, x, y], [out], "SelectV2Options")
    return out


def cast(graph: Graph, x: int, kind: str, name: str) -> int:
    """Numbers in another type."""
    out = graph.tensor(name, graph.shape(x), kind)
    graph.op("CAST", [x], [out], "CastOptions", inDataType=graph.kind(x), outDataType=graph.kind(out))
    return out


def clamp_ids(graph: Graph, ids: int, rows: np.ndarray, name: str) -> int:
    """Ids [batch, columns] within [0, rows) of each column's table.

    An id below becomes the first row, one above the last: what a look-up outside its table would read in a fused
    table is another table's row.
    """
    zero, last = np.zeros(1, np.int32), (np.asarray(rows, np.int64) - 1).astype(np.int32)
    low = elementwise(graph, "MAXIMUM", ids, like_ids(graph, ids, f"{name}/zero", zero), f"{name}/at_least")
    return elementwise(graph, "MINIMUM", low, like_ids(graph, low, f"{name}/last_rows", last), f"{name}/in_table")


def like_ids(graph: Graph, ids: int, name: str, values: np.ndarray) -> int:
    """A constant to meet ids with, in their shape: LiteRT's integer kernels broadcast several times as slowly."""
    shape = graph.shape(ids)
    if math.prod(shape) <= LARGEST_LIKE_IDS:
        values = np.broadcast_to(values, shape)
    return graph.values(name, values)


def lookup(graph: Graph, ids: int, table: Constant, name: str) -> int:
    """Rows [n, dim] as float32 of ids [n]; rows of float16 are widened behind the look-up."""
    is_half = table.kind == "float16"
    out = graph.tensor(name, (graph.shape(ids)[0], table.shape[1]), "float16" if is_half else "float32")
    version = 4 if table.kind in ("int4", "float16") or table.scale.size > 1 else 1
    graph.op("EMBEDDING_LOOKUP", [ids, graph.use(table)], [out], version=version)
    return widened(graph, out, f"{name}/widened", version=WIDENS_HALF) if is_half else out


# Versions of DEQUANTIZE by what it widens.
WIDENS_HALF = 3
WIDENS = {"float16": WIDENS_HALF, "int8": 5, "int4": 6}


def widened(graph: Graph, x: int, name: str, *, version: int) -> int:
    """A float16 or quantized tensor as float32."""
    out = graph.tensor(name, graph.shape(x))
    graph.op("DEQUANTIZE", [x], [out], "DequantizeOptions", version=version)
    return out


def dot_products(graph: Graph, x: int, y: int, name: str, *, quantized: Affine | None = None) -> int:
    """[batch, m, d] and [batch, n, d] to [batch, m, n]; INT8 where `quantized` gives the output's scale."""
    batch, m, _ = graph.shape(x)
    out = activation(graph, name, (batch, m, graph.shape(y)[1]), quantized)
    version = 1 if quantized is None else 2
    graph.op("BATCH_MATMUL", [x, y], [out], "BatchMatMulOptions", version=version, adjX=False, adjY=True)
    return out


def activation(graph: Graph, name: str, shape: tuple[int, ...], quantized: Affine | None) -> int:
    """A float32 tensor, or an INT8 one with this scale and zero point."""
    if quantized is None:
        return graph.tensor(name, shape)
    return graph.tensor(name, shape, "int8", scale=quantized.scale, zero_point=quantized.zero_point)


def reduce_sum(graph: Graph, x: int, axis: int, name: str, *, keep: bool = False, op: str = "SUM") -> int:
    """Sum, or mean with op "MEAN", over one axis."""
    shape = list(graph.shape(x))
    shape[axis : axis + 1] = [1] if keep else []
    out = graph.tensor(name, tuple(shape))
    at = graph.values(f"{name}/axis", np.array([axis], np.int32))
    graph.op(op, [x, at], [out], "ReducerOptions", keepDims=keep)
    return out


def unary(graph: Graph, op: str, x: int, name: str) -> int:
    """LOGISTIC or TANH; of INT8 with the one output scale that their kernels have."""
    if _is_int8(graph, x):
        out = activation(graph, name, graph.shape(x), FIXED[op])
        graph.op(op, [x], [out], version=2)
        return out
    out = graph.tensor(name, graph.shape(x))
    graph.op(op, [x], [out])
    return out


def relu(graph: Graph, x: int, name: str) -> int:
    """max(x, 0), in `x`'s type and scale."""
    out = _like(graph, x, name, graph.shape(x))
    graph.op("RELU", [x], [out], version=2 if _is_int8(graph, x) else 1)
    return out


def requantize(graph: Graph, x: int, wanted: Affine | None, name: str) -> int:
    """`x` in INT8 with this scale and zero point; itself where it has them, or where all is float."""
    if wanted is None or quantization(graph, x) == wanted:
        return x
    out = activation(graph, name, graph.shape(x), wanted)
    graph.op("QUANTIZE", [x], [out], "QuantizeOptions", version=2 if _is_int8(graph, x) else 1)
    return out


def dequantize(graph: Graph, x: int, name: str) -> int:
    """`x` in float32."""
    if not _is_int8(graph, x):
        return x
    out = graph.tensor(name, graph.shape(x))
    graph.op("DEQUANTIZE", [x], [out], "DequantizeOptions", version=2)
    return out


def quantization(graph: Graph, x: int) -> Affine | None:
    """Scale and zero point of an INT8 tensor; None for others."""
    held = graph.subgraph.tensors[x].quantization
    if not _is_int8(graph, x) or held is None:
        return None
    return Affine(scale=float(held.scale[0]), zero_point=int(held.zeroPoint[0]))


def slice_columns(graph: Graph, x: int, start: int, length: int, name: str) -> int:
    """Columns [start, start + length) of [batch, columns]."""
    batch, columns = graph.shape(x)
    if (start, length) == (0, columns):
        return x
    out = _like(graph, x, name, (batch, length))
    begin = graph.values(f"{name}/begin", np.array([0, start], np.int32))
    end = graph.values(f"{name}/end", np.array([batch, start + length], np.int32))
    strides = graph.values("unit_strides", np.ones(2, np.int32))
    graph.op("STRIDED_SLICE", [x, begin, end, strides], [out], "StridedSliceOptions")
    return out


def slice_block(graph: Graph, x: int, begin: Sequence[int], size: Sequence[int], name: str) -> int:
    """`size` values along each axis of `x` from `begin` on; itself where that is all of it."""
    if graph.shape(x) == tuple(size):
        return x
    out = _like(graph, x, name, tuple(size))
    start = graph.values(f"{name}/begin", np.array(begin, np.int32))
    count = graph.values(f"{name}/size", np.array(size, np.int32))
    graph.op("SLICE", [x, start, count], [out], "SliceOptions", version=2 if _is_int8(graph, x) else 1)
    return out


def rows_of(graph: Graph, table: Constant, ids: int, name: str, quantized: Affine | None) -> int:
    """Rows of a table by ids of any shape, in the table's type: [*ids, dim]."""
    out = activation(graph, name, (*graph.shape(ids), table.shape[1]), quantized)
    graph.op("GATHER", [graph.use(table), ids], [out], "GatherOptions", version=1 if quantized is None else 2, axis=0)
    return out


def fully_connected(
    graph: Graph,
    x: int,
    weight: Constant,
    bias: Constant,
    name: str,
    *,
    relu: bool = False,
    quantized: Affine | None = None,
    widens: bool = False,
) -> int:
    """[batch, in] times weight [out, in]; on floats INT8 and INT4 weights are dynamic.

    Args:
        quantized: Scale and zero point of the output of a full-integer layer.
        widens: Narrow weights become float32 first, and the layer computes on floats.
    """
    weights = graph.use(weight)
    if widens:
        weights = widened(graph, weights, f"{weight.name}/widened", version=WIDENS[weight.kind])
    out = activation(graph, name, (graph.shape(x)[0], weight.shape[0]), quantized)
    dynamic = 1 if weight.kind == "float32" or widens else 12
    graph.op(
        "FULLY_CONNECTED",
        [x, weights, graph.use(bias)],
        [out],
        "FullyConnectedOptions",
        version=dynamic if quantized is None else 4,
        fusedActivationFunction=schema().ActivationFunctionType.RELU if relu else 0,
    )
    return out


def cast_float(graph: Graph, x: int, name: str) -> int:
    """A bool or integer tensor as float32."""
    fb = schema()
    out = graph.tensor(name, graph.shape(x))
    graph.op("CAST", [x], [out], "CastOptions", inDataType=graph.kind(x), outDataType=fb.TensorType.FLOAT32)
    return out
