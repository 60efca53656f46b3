"""Drop transpositions that change nothing: what the stock converter's layout pass leaves between its islands."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from converters.tflite.flatbuffer import add_buffer, constant, op_name, tensor_name

__all__ = ["cancel_transposition_pairs", "reduce_before_transposing"]

REDUCTIONS = frozenset({"MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"})


def cancel_transposition_pairs(model: Any) -> None:
    """Let readers of a value that was transposed there and back read the original; drop what nothing reads any more."""
    for graph in model.subgraphs:
        makers = {int(index): operator for operator in graph.operators for index in operator.outputs}
        replaced: dict[int, int] = {}
        for back in graph.operators:
            there = makers.get(int(back.inputs[0])) if op_name(model, back) == "TRANSPOSE" else None
            if there is None or op_name(model, there) != "TRANSPOSE" or int(back.outputs[0]) in graph.outputs:
                continue
            first, second = _order(model, graph, there), _order(model, graph, back)
            if first is not None and second is not None and [first[axis] for axis in second] == sorted(first):
                original = int(there.inputs[0])
                replaced[int(back.outputs[0])] = replaced.get(original, original)
        for operator in graph.operators:
            for place, index in enumerate(operator.inputs):
                operator.inputs[place] = replaced.get(int(index), index)
        _drop_unread(model, graph)


def reduce_before_transposing(model: Any) -> None:
    """Let a mean over the image's pixels read the image as it lies, with the axes counted in that order."""
    for graph in model.subgraphs:
        makers = {int(index): operator for operator in graph.operators for index in operator.outputs}
        for reduction in graph.operators:
            there = makers.get(int(reduction.inputs[0])) if op_name(model, reduction) in REDUCTIONS else None
            if there is None or op_name(model, there) != "TRANSPOSE" or reduction.builtinOptions.keepDims:
                continue
            order, axes = _order(model, graph, there), constant(model, graph.tensors[reduction.inputs[1]])
            if order is None or axes is None:
                continue
            reduced = {int(axis) % len(order) for axis in axes.reshape(-1)}
            kept = [order[axis] for axis in range(len(order)) if axis not in reduced]
            if kept != sorted(kept):
                continue  # what remains would come out in another order
            values = np.array(sorted(order[axis] for axis in reduced), np.int32)
            tensor = copy.copy(graph.tensors[reduction.inputs[1]])
            tensor.buffer, tensor.shape = add_buffer(model, values), np.array([len(values)], np.int32)
            tensor.name = f"{tensor_name(tensor)}.in_place".encode()
            graph.tensors.append(tensor)
            reduction.inputs = np.array([there.inputs[0], len(graph.tensors) - 1], np.int32)
        _drop_unread(model, graph)


def _order(model: Any, graph: Any, transpose: Any) -> list[int] | None:
    values = constant(model, graph.tensors[transpose.inputs[1]])
    return None if values is None else [int(value) for value in values]


def _drop_unread(model: Any, graph: Any) -> None:
    changed = True
    while changed:
        read = {int(index) for operator in graph.operators for index in operator.inputs} | {
            int(i) for i in graph.outputs
        }
        kept = [
            operator
            for operator in graph.operators
            if op_name(model, operator) != "TRANSPOSE" or int(operator.outputs[0]) in read
        ]
        changed = len(kept) != len(graph.operators)
        graph.operators = kept
