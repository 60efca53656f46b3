"""Tables inside a generic graph: GATHER from a stored table becomes EMBEDDING_LOOKUP, its rows INT8 or packed INT4."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.tflite.flatbuffer import (
    add_buffer,
    add_opcode,
    add_tensor,
    dtype_name,
    schema,
    set_affine,
    set_constant,
    tensor_name,
    tensor_type,
)
from converters.tflite.recommender_tables import LARGEST_HALF, quantize_rows, row_chunks, row_scales, table_scale
from converters.tflite.structure import Node, View
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["TableStore", "cannot_be_table", "is_lookup", "rewrite_lookup"]

# 4: packed INT4 rows and a scale for each row. Runtimes older than that refuse the file instead of computing nonsense.
LOOKUP_VERSION = 4


def is_lookup(view: View, node: Node) -> bool:
    """Whether the operator reads rows of a stored float table."""
    slot = {"EMBEDDING_LOOKUP": 1, "GATHER": 0}.get(node.kind)
    return slot is not None and view.is_constant(node.inputs[slot]) and view.is_float(node.inputs[slot])


def table_slot(node: Node) -> int:
    """Position of the table among a look-up's inputs."""
    return 1 if node.kind == "EMBEDDING_LOOKUP" else 0


def cannot_be_table(view: View, node: Node, bits: int) -> str:
    """Why the rows cannot be quantized; empty when they can."""
    table = view.tensor(node.inputs[table_slot(node)])
    if len(table.shape) != 2:
        return f"its table has {len(table.shape)} dimensions, not rows and columns"
    if node.kind == "GATHER":
        options = node.operator.builtinOptions
        if options is not None and (options.axis not in (0, -2) or options.batchDims):
            return "it gathers along another axis than the rows"
        if dtype_name(view.tensor(node.inputs[1])) not in ("int32", "int64"):
            return f"its ids are {dtype_name(view.tensor(node.inputs[1]))}"
        if _open_dimensions(view.tensor(node.outputs[0])) > 1:
            return "more than one dimension of its output is open"
    if bits == 4 and float(np.abs(view.values(node.inputs[table_slot(node)])).max(initial=0.0)) / 7 > LARGEST_HALF:
        return "its values need a row scale beyond float16"
    return ""


def _open_dimensions(tensor: Any) -> int:
    signature = tensor.shapeSignature
    return 0 if signature is None else sum(int(size) < 0 for size in signature)


@dataclass(slots=True)
class TableStore:
    """Quantized tables of one model; a table that several subgraphs read is stored once."""

    model: Any
    spec: QuantSpec
    stored: dict[tuple[int, int], tuple[int, int, np.ndarray | None]] = field(default_factory=dict)

    def table(self, view: View, node: Node, bits: int) -> int:
        """Index, in the node's subgraph, of the quantized table that replaces the operator's."""
        source = view.tensor(node.inputs[table_slot(node)])
        key = (int(source.buffer), bits)
        if key not in self.stored:
            self.stored[key] = self._store(view.values(node.inputs[table_slot(node)]), bits)
        buffer, scale_buffer, scales = self.stored[key]
        rows, width = (int(size) for size in source.shape)
        stored_width = width + width % 2 if bits == 4 else width
        index = add_tensor(view.graph, tensor_name(source), (rows, stored_width), f"int{bits}")
        tensor = view.tensor(index)
        tensor.buffer = buffer
        if scales is not None:
            set_affine(tensor, scales, np.zeros(scales.size), axis=0)
            return index
        scale_index = add_tensor(view.graph, f"{tensor_name(source)}_scales", (rows, 1), "float16")
        view.tensor(scale_index).buffer = scale_buffer
        fb = schema()
        details = fb.BlockwiseQuantizationT()
        details.scales, details.zeroPoints, details.blockSize = scale_index, -1, stored_width
        tensor.quantization = fb.QuantizationParametersT()
        tensor.quantization.detailsType = fb.QuantizationDetails.BlockwiseQuantization
        tensor.quantization.details = details
        tensor.quantization.quantizedDimension = 0
        return index

    def _store(self, rows: np.ndarray, bits: int) -> tuple[int, int, np.ndarray | None]:
        """Buffer of the rows, buffer of float16 row scales (-1 when there is none), float32 scales otherwise."""
        width = rows.shape[1] + (rows.shape[1] % 2 if bits == 4 else 0)
        if self.spec.table_scale == "table":
            scale = table_scale(float(rows.min(initial=0.0)), float(rows.max(initial=0.0)), bits)
            parts = [quantize_rows(part, np.array([scale]), bits, width) for part in row_chunks(rows)]
            return add_buffer(self.model, np.concatenate(parts)), -1, np.array([scale], np.float32)
        scales = [row_scales(part, bits) for part in row_chunks(rows)]
        parts = [quantize_rows(part, s, bits, width) for part, s in zip(row_chunks(rows), scales, strict=True)]
        data, joined = add_buffer(self.model, np.concatenate(parts)), np.concatenate(scales)
        if bits == 4:
            return data, add_buffer(self.model, joined), None
        return data, -1, joined


def rewrite_lookup(view: View, node: Node, table: int) -> list[Any]:
    """The operators that look rows of the quantized table up, with the same result and the same bounds on ids.

    Both operators stop the inference at an id outside the table, so no clamp is needed. EMBEDDING_LOOKUP wants one
    axis of INT32 ids; other ids are converted and reshaped around it, and a padded column is cut off behind it.
    """
    model, graph = view.model, view.graph
    before: list[Any] = []
    behind: list[Any] = []
    ids = node.inputs[0] if node.kind == "EMBEDDING_LOOKUP" else node.inputs[1]
    result = node.outputs[0]
    name = tensor_name(view.tensor(result))
    width = int(view.tensor(node.inputs[table_slot(node)]).shape[1])
    stored_width = int(view.tensor(table).shape[1])
    id_shape = _shape(view.tensor(ids))
    count = int(np.prod(id_shape, dtype=np.int64))
    if dtype_name(view.tensor(ids)) == "int64":
        narrow = add_tensor(graph, f"{name}_ids32", id_shape, "int32", like=view.tensor(ids))
        before.append(_cast(model, ids, narrow))
        ids = narrow
    if len(id_shape) != 1:
        flat = add_tensor(graph, f"{name}_flat_ids", (count,), "int32")
        before.append(_reshape(view, ids, flat, (-1,)))
        ids = flat
    if stored_width != width:
        cut = result if len(id_shape) == 1 else add_tensor(graph, f"{name}_rows", (count, width), "float32")
        padded = add_tensor(graph, f"{name}_padded", (count, stored_width), "float32")
        behind.append(_slice(view, padded, cut, width))
        looked_up = padded
    else:
        cut = looked_up = result if len(id_shape) == 1 else add_tensor(graph, f"{name}_rows", (count, width), "float32")
    if cut != result:
        behind.append(_reshape(view, cut, result, _signature(view.tensor(result))))
    if looked_up != result:
        # The first output's name is the layer's name, so it stays with the look-up.
        view.tensor(looked_up).name, view.tensor(result).name = name.encode(), f"{name}_shaped".encode()
    operator = node.operator
    operator.opcodeIndex = add_opcode(model, "EMBEDDING_LOOKUP", LOOKUP_VERSION)
    operator.inputs, operator.outputs = [ids, table], [looked_up]
    operator.builtinOptions, operator.builtinOptionsType = None, 0
    return [*before, operator, *behind]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))


def _signature(tensor: Any) -> tuple[int, ...]:
    signature = tensor.shapeSignature
    return _shape(tensor) if signature is None or not len(signature) else tuple(int(size) for size in signature)


def _operator(model: Any, kind: str, inputs: list[int], outputs: list[int], options: str) -> Any:
    fb = schema()
    operator = fb.OperatorT()
    operator.opcodeIndex = add_opcode(model, kind, 1)
    operator.inputs, operator.outputs = inputs, outputs
    operator.builtinOptionsType = getattr(fb.BuiltinOptions, options)
    operator.builtinOptions = getattr(fb, f"{options}T")()
    return operator


def _integers(view: View, name: str, values: tuple[int, ...]) -> int:
    index = add_tensor(view.graph, name, (len(values),), "int32")
    set_constant(view.model, view.tensor(index), np.array(values, np.int32), "int32")
    return index


def _reshape(view: View, source: int, result: int, shape: tuple[int, ...]) -> Any:
    wanted = _integers(view, f"{tensor_name(view.tensor(result))}_shape", shape)
    operator = _operator(view.model, "RESHAPE", [source, wanted], [result], "ReshapeOptions")
    operator.builtinOptions.newShape = list(shape)
    return operator


def _slice(view: View, source: int, result: int, width: int) -> Any:
    name = tensor_name(view.tensor(result))
    begin, size = _integers(view, f"{name}_begin", (0, 0)), _integers(view, f"{name}_size", (-1, width))
    return _operator(view.model, "SLICE", [source, begin, size], [result], "SliceOptions")


def _cast(model: Any, source: int, result: int) -> Any:
    operator = _operator(model, "CAST", [source], [result], "CastOptions")
    operator.builtinOptions.inDataType, operator.builtinOptions.outDataType = tensor_type("int64"), tensor_type("int32")
    return operator
