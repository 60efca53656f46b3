"""Which values of a .tflite file are alive at each layer, and how many bytes that makes."""

from __future__ import annotations

import math
from pathlib import Path

from edge_deploy.api.fit_values import Stage
from runtimes.formats.tflite_file import BITS, FileSubgraph, read_tflite
from runtimes.formats.tflite_layers import is_constant, layer_names, stored_bytes, tensor_names

__all__ = ["image_size", "peak_of", "tflite_stages", "weights_of_kernels"]

LARGEST = 4
# Layers whose weights may be 4 bits wide in the forms that are offered for microcontrollers.
NARROW = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def tflite_stages(path: Path) -> tuple[Stage, ...]:
    """Its layers in order; open sizes count as 1.

    Raises:
        BadInput: Not a .tflite file, or a damaged one.
    """
    model = read_tflite(path)
    graph = model.subgraphs[0]
    names, tensors = layer_names(graph), tensor_names(graph)
    born: dict[int, int] = dict.fromkeys(graph.inputs, -1)
    dies: dict[int, int] = dict.fromkeys(graph.inputs, -1)
    for number, operator in enumerate(graph.operators):
        for index in operator.outputs:
            born.setdefault(index, number)
            dies[index] = max(dies.get(index, number), number)
        for index in operator.inputs:
            if index in born:
                dies[index] = number
    for index in graph.outputs:
        dies[index] = len(graph.operators)
    stages = []
    for number, (name, operator) in enumerate(zip(names, graph.operators, strict=True)):
        alive = {t: _bytes(graph, t) for t in born if born[t] <= number <= dies[t]}
        largest = sorted(alive, key=lambda t: -alive[t])[:LARGEST]
        weights = {i for i in operator.inputs if 0 <= i < len(tensors) and is_constant(model, graph.tensors[i])}
        stages.append(
            Stage(
                layer=name,
                op=operator.op,
                live_bytes=sum(alive.values()),
                tensors=tuple((tensors[t], alive[t]) for t in largest),
                weight_bytes=sum(stored_bytes(model, graph.tensors[i]) for i in weights),
                passed_bytes=sum(_bytes(graph, t) for t in born if born[t] <= number < dies[t]),
            )
        )
    return tuple(stages)


def peak_of(stages: tuple[Stage, ...]) -> int | None:
    """Place of the layer with the most live bytes."""
    return max(range(len(stages)), key=lambda place: stages[place].live_bytes) if stages else None


def weights_of_kernels(path: Path) -> tuple[int, int]:
    """Bytes of 8-bit weights that could be 4 bits wide, and of the largest layer's among them."""
    model = read_tflite(path)
    graph = model.subgraphs[0]
    sizes = []
    for operator in graph.operators:
        if operator.op in NARROW and len(operator.inputs) > 1:
            tensor = graph.tensors[operator.inputs[1]]
            if tensor.dtype == "int8" and is_constant(model, tensor):
                sizes.append(stored_bytes(model, tensor))
    return sum(sizes), max(sizes, default=0)


def image_size(path: Path) -> tuple[int, ...]:
    """Height and width of the first input of four dimensions; empty without one."""
    graph = read_tflite(path).subgraphs[0]
    for index in graph.inputs:
        shape = graph.tensors[index].dims
        if len(shape) == 4 and min(shape[1:3]) > 1:
            return tuple(shape[1:3])
    return ()


def _bytes(graph: FileSubgraph, index: int) -> int:
    tensor = graph.tensors[index]
    return math.prod(max(1, size) for size in tensor.dims) * BITS.get(tensor.dtype, 0) // 8
