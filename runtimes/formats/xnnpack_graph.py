"""Read the graph inside an XNNPACK delegate's payload: nodes, their weights' types, where the weights' bytes lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from edge_deploy.core.errors import BadInput
from runtimes.formats.flat_table import FlatTable, root_table

__all__ = ["XnnNode", "read_xnnpack"]

_HEADER = struct.Struct("<4s4sHIIIQ")
_OPS = (
    "NONE", "Add", "FullyConnected", "Softmax", "Sigmoid", "StaticTranspose", "Clamp", "Conv2d", "Div",
    "StaticResizeBilinear2D", "StaticConstantPad", "AvgPooling2d", "Minimum", "DepthwiseConv2d", "MaxPooling2d",
    "Multiply", "Subtract", "Floor", "Convert", "GlobalAvgPooling2d", "StaticReshape", "ArgMaxPooling2d", "SquareRoot",
    "Ceiling", "Hardswish", "LeakyReLU", "Maximum", "Negate", "Square", "ELU", "Abs", "PReLU", "Concatenate2",
    "Concatenate3", "Concatenate4", "StaticSlice", "ScaledDotProductAttention", "BatchMatrixMultiply", "Concatenate5",
    "ConvTranspose2d", "ReciprocalSquareRoot", "Log", "Gelu", "Tanh", "Exp", "Sin", "Copy", "Cos",
)  # fmt: skip
# In XNNPACK's order; qcint8, qcint4 and qbint4 are int8 and int4 here, and `granularity` tells them apart.
_TYPES = (
    "invalid", "float32", "float16", "int8", "uint8", "int32", "int8", "int32", "int4", "int8 (dynamic)", "int4",
    "int8 (packed)", "int32", "float32 (packed)", "bfloat16",
)  # fmt: skip
_TWO_IN = {"Add", "Div", "Minimum", "Multiply", "Subtract", "Maximum", "PReLU", "BatchMatrixMultiply"}
_CONV = {"Conv2d", "DepthwiseConv2d", "ConvTranspose2d"}
_OUTPUT_SLOT = {
    "FullyConnected": 3, "StaticTranspose": 3, "StaticResizeBilinear2D": 3, "StaticConstantPad": 4, "AvgPooling2d": 11,
    "MaxPooling2d": 11, "StaticReshape": 3, "StaticSlice": 4, "ELU": 2, "LeakyReLU": 2, "ArgMaxPooling2d": 8,
    "ScaledDotProductAttention": 5,
}  # fmt: skip
_OUTPUT_SLOT |= dict.fromkeys(_TWO_IN, 2) | dict.fromkeys(_CONV, 18)
_OUTPUT_SLOT |= {f"Concatenate{count}": 5 for count in (2, 3, 4, 5)}
_FILTER_SLOT = {"FullyConnected": 1, "PReLU": 1} | dict.fromkeys(_CONV, 16)
_GRANULARITY = {1: "per-channel", 2: "per-tensor", 3: "none", 4: "blockwise"}


@dataclass(frozen=True, slots=True, kw_only=True)
class XnnNode:
    """One node of a delegate's graph.

    Attributes:
        handle: Debug handle; 65535 where the lowering inserted the node itself.
        weight_dtype: E.g. "int8" or "int4" (two to a byte); None without weights.
        weight_bytes: Bytes of the weights; -1 when the graph only says under which key to find them.
    """

    op: str
    handle: int
    output_dtype: str
    weight_dtype: str | None = None
    weight_count: int = 0
    weight_bytes: int = 0
    weight_key: str = ""
    granularity: Any = "none"


@dataclass(frozen=True, slots=True)
class _Value:
    dtype: str
    count: int
    constant: int
    granularity: str


def read_xnnpack(payload: bytes | memoryview, *, where: str) -> tuple[XnnNode, ...]:
    """The nodes of a payload, in order of execution.

    Raises:
        BadInput: The payload is damaged.
    """
    if len(payload) < _HEADER.size:
        raise BadInput(f"{where}: ends after {len(payload)} bytes; the file is damaged, get it again.")
    _, magic, _, start, size, _, _ = _HEADER.unpack_from(payload)
    if magic != b"XH00" or start + size > len(payload):
        raise BadInput(f"{where}: has a damaged header; get the file again.")
    graph = root_table(memoryview(payload)[start : start + size], where=where)
    values = dict(_value(entry) for entry in graph.tables(2))
    constants = [(entry.number(1, "u64"), entry.text(2)) for entry in graph.tables(8)]
    return tuple(_node(entry, values, constants) for entry in graph.tables(1))


def _value(entry: FlatTable) -> tuple[int, _Value]:
    quantized = entry.number(0, "u8") == 2
    outer = entry.table(1)
    tensor = outer.table(0) if quantized and outer is not None else outer
    if tensor is None:
        raise BadInput(f"{entry.where}: a value without content; the file is damaged, get it again.")
    kind = tensor.number(0, "i16")
    count = 1
    for size in tensor.vector(2, "u32"):
        count *= int(size)
    granularity = _GRANULARITY.get(outer.number(1, "u8"), "none") if quantized and outer is not None else "none"
    dtype = _TYPES[kind] if 0 <= kind < len(_TYPES) else f"type {kind}"
    return tensor.number(6, "u32"), _Value(dtype, count, tensor.number(3, "u32"), granularity)


def _node(entry: FlatTable, values: dict[int, _Value], constants: list[tuple[int, str]]) -> XnnNode:
    kind = entry.number(0, "u8")
    op = _OPS[kind] if kind < len(_OPS) else f"node {kind}"
    body = entry.table(1)
    handle = entry.number(2, "u32")
    if body is None:
        raise BadInput(f"{entry.where}: a {op} without content; the file is damaged, get it again.")
    output = values.get(body.number(_OUTPUT_SLOT.get(op, 1), "u32"))
    dtype = output.dtype if output is not None else "unknown"
    weight = values.get(body.number(_FILTER_SLOT[op], "u32")) if op in _FILTER_SLOT else None
    if weight is None or weight.constant == 0:
        return XnnNode(op=op, handle=handle, output_dtype=dtype)
    if weight.constant >= len(constants):
        raise BadInput(f"{entry.where}: {op} reads constant {weight.constant} of {len(constants)}; get the file again.")
    size, key = constants[weight.constant]
    return XnnNode(
        op=op,
        handle=handle,
        output_dtype=dtype,
        weight_dtype=weight.dtype,
        weight_count=weight.count,
        weight_bytes=-1 if key else size,
        weight_key=key,
        granularity=weight.granularity,
    )
