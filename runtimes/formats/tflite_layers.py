"""The operators of a .tflite subgraph as layers: names that are unique, weights found, multiply-accumulates counted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runtimes.formats.tflite_file import FileOperator, FileSubgraph, FileTensor, TfliteFile

__all__ = [
    "Weights",
    "count_macs",
    "find_weights",
    "has_row_scales",
    "is_constant",
    "layer_names",
    "makers",
    "stored_bytes",
    "tensor_names",
]

WEIGHT_INPUT = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "TRANSPOSE_CONV": 1,
    "CONV_3D": 1,
    "CONV_3D_TRANSPOSE": 1,
    "FULLY_CONNECTED": 1,
    "BATCH_MATMUL": 1,
    "EMBEDDING_LOOKUP": 1,
    "EMBEDDING_LOOKUP_SPARSE": 4,
    "GATHER": 0,
    "SVDF": 1,
    "RNN": 1,
    "UNIDIRECTIONAL_SEQUENCE_RNN": 1,
    "LSTM": 1,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 1,
    "BIDIRECTIONAL_SEQUENCE_LSTM": 1,
}
"""Which input of an operator is its weights; for recurrent ones the first of many of one kind."""
RECURRENT = ("SVDF", "RNN", "UNIDIRECTIONAL_SEQUENCE_RNN", "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM")
# Weights may reach their operator through these, e.g. float16 weights that are widened at load.
PASSES_WEIGHTS = ("DEQUANTIZE", "DENSIFY", "TRANSPOSE", "RESHAPE", "CAST", "QUANTIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A tensor of weights and its index in the subgraph."""

    index: int
    tensor: FileTensor


def tensor_names(graph: FileSubgraph) -> tuple[str, ...]:
    """A unique name for every tensor: the file's, with the tensor's number where it has none or shares one."""
    seen: set[str] = set()
    names = []
    for index, tensor in enumerate(graph.tensors):
        name = tensor.name or f"tensor_{index}"
        if name in seen:
            name = f"{name}#{index}"
        seen.add(name)
        names.append(name)
    return tuple(names)


def layer_names(graph: FileSubgraph) -> tuple[str, ...]:
    """A unique name for every operator: its first output tensor's."""
    tensors = tensor_names(graph)
    seen: set[str] = set()
    names = []
    for place, operator in enumerate(graph.operators):
        first = operator.outputs[0] if operator.outputs else -1
        name = tensors[first] if 0 <= first < len(tensors) else f"{operator.op}_{place}"
        if name in seen:
            name = f"{name}@{place}"
        seen.add(name)
        names.append(name)
    return tuple(names)


def stored_bytes(model: TfliteFile, tensor: FileTensor) -> int:
    """Bytes of the tensor's constant data in the file; 0 for a value that is computed."""
    return model.buffers[tensor.buffer].bytes if 0 < tensor.buffer < len(model.buffers) else 0


def is_constant(model: TfliteFile, tensor: FileTensor) -> bool:
    """Whether the file holds the tensor's values."""
    if tensor.is_variable or not 0 < tensor.buffer < len(model.buffers):
        return tensor.is_external
    # A constant without elements has no bytes; other values without bytes are computed, whatever their buffer.
    return stored_bytes(model, tensor) > 0 or 0 in tensor.shape


def makers(graph: FileSubgraph) -> dict[int, FileOperator]:
    """The operator that makes each computed tensor."""
    return {index: operator for operator in reversed(graph.operators) for index in operator.outputs}


def find_weights(
    model: TfliteFile, graph: FileSubgraph, operator: FileOperator, made_by: Mapping[int, FileOperator]
) -> Weights | None:
    """The weights of an operator, also where they pass a DEQUANTIZE first; None for an operator without.

    Args:
        made_by: What `makers` says of the graph.
    """
    place = WEIGHT_INPUT.get(operator.op)
    if place is None or place >= len(operator.inputs):
        return None
    candidates = [operator.inputs[place]]
    if operator.op == "BATCH_MATMUL":
        candidates.append(operator.inputs[0])
    for index in candidates:
        for step in _upstream(graph, index, made_by):
            tensor = graph.tensors[step]
            if is_constant(model, tensor):
                return Weights(index=step, tensor=tensor)
    return None


def has_row_scales(graph: FileSubgraph, operator: FileOperator) -> bool:
    """Whether looked-up rows are multiplied with scales that are looked up by the same ids from a table [rows, 1]."""
    if operator.op != "EMBEDDING_LOOKUP" or not operator.outputs or len(operator.inputs) < 2:
        return False
    beside = {
        other.outputs[0]
        for other in graph.operators
        if other.op == "EMBEDDING_LOOKUP"
        and other.outputs
        and len(other.inputs) > 1
        and other.inputs[0] == operator.inputs[0]
        and _shape(graph, other.inputs[1])[1:] == (1,)
    }
    product = next((p for p in graph.operators if p.op == "MUL" and operator.outputs[0] in p.inputs), None)
    return product is not None and any(index in beside for index in product.inputs)


def _upstream(graph: FileSubgraph, index: int, made_by: Mapping[int, FileOperator]) -> Iterator[int]:
    for _ in range(len(PASSES_WEIGHTS)):
        if not 0 <= index < len(graph.tensors):
            return
        yield index
        maker = made_by.get(index)
        if maker is None or maker.op not in PASSES_WEIGHTS or not maker.inputs:
            return
        index = maker.inputs[0]


def count_macs(graph: FileSubgraph, operator: FileOperator) -> int:
    """Multiply-accumulates of one call, with dynamic dimensions taken as 1; 0 for operators without."""
    shapes = [_shape(graph, index) for index in operator.inputs]
    out = math.prod(_shape(graph, operator.outputs[0])) if operator.outputs else 0
    weights = shapes[1] if len(shapes) > 1 else ()
    if operator.op == "CONV_2D" and len(weights) == 4:
        return out * math.prod(weights[1:])
    if operator.op == "DEPTHWISE_CONV_2D" and len(weights) == 4:
        return out * weights[1] * weights[2]
    if operator.op == "CONV_3D" and len(weights) == 5:
        return out * math.prod(weights[:4])
    if operator.op == "TRANSPOSE_CONV" and len(weights) == 4 and len(shapes) > 2:
        return math.prod(shapes[2]) * math.prod(weights[:3])
    if operator.op == "FULLY_CONNECTED" and weights:
        return out * weights[-1]
    if operator.op == "BATCH_MATMUL" and len(shapes) > 1 and len(shapes[0]) > 1:
        return out * shapes[0][-2 if operator.options_table("AdjX") else -1]
    if operator.op in RECURRENT and operator.outputs:
        steps = out // max(1, _shape(graph, operator.outputs[0])[-1])
        return steps * sum(math.prod(shape) for shape in shapes[1:] if len(shape) == 2)
    return 0


def _shape(graph: FileSubgraph, index: int) -> tuple[int, ...]:
    if not 0 <= index < len(graph.tensors):
        return ()
    return tuple(1 if size < 0 else size for size in graph.tensors[index].dims)
