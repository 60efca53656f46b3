"""Remove the transposition in front of a flattened image: the fully connected layer behind it is permuted instead.

A PyTorch network flattens [channels, height, width]; in a TFLite file the image lies as [height, width, channels]. The
columns of the layer that reads the flattened image are put in that order, once, and nothing is transposed at run time.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from converters.tflite.flatbuffer import constant, has_data, op_name

__all__ = ["fold_flattening_transpositions"]

TO_CHANNELS_FIRST = [0, 3, 1, 2]


def fold_flattening_transpositions(model: Any) -> None:
    """Rewrite TRANSPOSE → RESHAPE → FULLY_CONNECTED in every graph where nothing else reads what lies between.

    A weight that several graphs share is permuted once; it is left alone unless all its readers want the same order.
    """
    found: dict[int, list[tuple[Any, Any, Any, tuple[int, ...]]]] = defaultdict(list)
    for graph in model.subgraphs:
        for transpose, reshape, dense, sizes in _patterns(model, graph):
            found[graph.tensors[dense.inputs[1]].buffer].append((graph, transpose, reshape, sizes))
    for buffer, places in found.items():
        orders = {place[3] for place in places}
        if len(orders) != 1 or _readers(model, buffer) != len(places):
            continue
        _permute(model, buffer, places[0][0], orders.pop())
        for graph, transpose, reshape, _ in places:
            reshape.inputs[0] = transpose.inputs[0]
            graph.operators.remove(transpose)


def _patterns(model: Any, graph: Any) -> list[tuple[Any, Any, Any, tuple[int, ...]]]:
    makers = {int(index): operator for operator in graph.operators for index in operator.outputs}
    uses: dict[int, int] = defaultdict(int)
    for index in (*graph.outputs, *(index for operator in graph.operators for index in operator.inputs)):
        uses[int(index)] += 1
    result = []
    for dense in graph.operators:
        if op_name(model, dense) != "FULLY_CONNECTED" or not has_data(model, graph.tensors[dense.inputs[1]]):
            continue
        reshape = makers.get(int(dense.inputs[0]))
        if reshape is None or op_name(model, reshape) != "RESHAPE" or uses[int(dense.inputs[0])] != 1:
            continue
        transpose = makers.get(int(reshape.inputs[0]))
        if transpose is None or op_name(model, transpose) != "TRANSPOSE" or uses[int(reshape.inputs[0])] != 1:
            continue
        order = constant(model, graph.tensors[transpose.inputs[1]])
        shape = tuple(int(size) for size in graph.tensors[reshape.inputs[0]].shape)
        width = int(graph.tensors[dense.inputs[1]].shape[1])
        if order is not None and order.tolist() == TO_CHANNELS_FIRST and int(np.prod(shape[1:])) == width:
            result.append((transpose, reshape, dense, shape[1:]))
    return result


def _readers(model: Any, buffer: int) -> int:
    """How many operator inputs read the buffer, in all graphs."""
    return sum(
        1
        for graph in model.subgraphs
        for operator in graph.operators
        for index in operator.inputs
        if index >= 0 and graph.tensors[index].buffer == buffer
    )


def _permute(model: Any, buffer: int, graph: Any, sizes: tuple[int, ...]) -> None:
    tensor = next(tensor for tensor in graph.tensors if tensor.buffer == buffer)
    weights = constant(model, tensor)
    assert weights is not None
    ordered = weights.reshape(-1, *sizes).transpose(0, 2, 3, 1).reshape(weights.shape)
    model.buffers[buffer].data = np.frombuffer(np.ascontiguousarray(ordered).tobytes(), np.uint8)
