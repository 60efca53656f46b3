"""Fold scales and shifts by channel into the layers beside them: batch norms that a converter left as MUL and ADD."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.tflite.flatbuffer import (
    add_tensor,
    constant,
    dtype_name,
    has_data,
    op_name,
    schema,
    set_constant,
    tensor_name,
)
from converters.tflite.operators import OPERATORS

__all__ = ["fold_model"]

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
LINEAR = ("MUL", "ADD", "SUB")


def fold_model(model: Any) -> int:
    """Edit the float model in place; returns how many operators disappeared.

    Behind a layer a product with a constant scales its rows and a sum shifts its bias (arXiv:1712.05877, section 3.2).
    Before a layer, as behind the ReLU of "convolution, ReLU, batch norm", a product scales its columns, and a sum
    shifts its bias where no border is padded with zeros, which the sum would not have shifted.
    """
    folded = 0
    for graph in model.subgraphs:
        while True:
            found = next((step for op in graph.operators if (step := _step(model, graph, op)) is not None), None)
            if found is None:
                break
            found.carry_out(model, graph)
            folded += 1
    return folded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One linear operator and the layer that takes it over.

    Attributes:
        values: What it multiplies with or adds, one for each channel or a single one.
        is_behind: It reads what the layer makes; otherwise the layer reads what it makes.
    """

    linear: Any
    layer: Any
    kind: str
    values: np.ndarray
    variable: int
    is_behind: bool

    def carry_out(self, model: Any, graph: Any) -> None:
        layer, rule = self.layer, OPERATORS[op_name(model, self.layer)]
        weights = graph.tensors[layer.inputs[1]]
        old = constant(model, weights)
        assert old is not None
        old = old.astype(np.float64)
        outputs = old.shape[rule.axis]
        bias = _bias(model, graph, layer, outputs)
        rows = [-1 if axis == rule.axis else 1 for axis in range(old.ndim)]
        if self.is_behind:
            values = np.broadcast_to(self.values, outputs)
            if self.kind == "MUL":
                set_constant(model, weights, old * values.reshape(rows), "float32")
            _set_bias(model, graph, layer, bias * values if self.kind == "MUL" else bias + values)
            layer.outputs = list(self.linear.outputs)
            layer.builtinOptions.fusedActivationFunction = self.linear.builtinOptions.fusedActivationFunction
        else:
            columns = _columns(op_name(model, layer), old, self.values)
            if self.kind == "MUL":
                set_constant(model, weights, old * columns, "float32")
            else:
                axes = tuple(axis for axis in range(old.ndim) if axis != rule.axis)
                _set_bias(model, graph, layer, bias + (old * columns).sum(axis=axes))
            layer.inputs = [self.variable, *list(layer.inputs)[1:]]
        graph.operators = [operator for operator in graph.operators if operator is not self.linear]


def _step(model: Any, graph: Any, operator: Any) -> _Step | None:
    kind = op_name(model, operator)
    if kind not in LINEAR or len(operator.inputs) != 2:
        return None
    stored = [slot for slot in (0, 1) if has_data(model, graph.tensors[operator.inputs[slot]])]
    if len(stored) != 1 or (kind == "SUB" and stored == [0]):
        return None
    variable = int(operator.inputs[1 - stored[0]])
    given, result = graph.tensors[variable], graph.tensors[operator.outputs[0]]
    if dtype_name(given) != "float32" or list(given.shape) != list(result.shape) or len(given.shape) < 2:
        return None
    values = constant(model, graph.tensors[operator.inputs[stored[0]]])
    assert values is not None
    # One value for each channel, or a single one: all other axes have one element.
    if values.size != 1 and (values.size != values.shape[-1] or values.size != given.shape[-1]):
        return None
    values = values.reshape(-1).astype(np.float64) * (-1 if kind == "SUB" else 1)
    kind = "MUL" if kind == "MUL" else "ADD"
    uses = Counter(int(i) for op in graph.operators for i in op.inputs)
    uses.update(int(i) for i in graph.outputs)
    maker = next((op for op in graph.operators if variable in [int(i) for i in op.outputs]), None)
    none = schema().ActivationFunctionType.NONE
    if maker is not None and (uses[variable] > 1 or not _can_change(model, graph, maker)):
        maker = None
    if maker is not None and maker.builtinOptions.fusedActivationFunction == none:
        return _Step(linear=operator, layer=maker, kind=kind, values=values, variable=variable, is_behind=True)
    made = int(operator.outputs[0])
    reader = next((op for op in graph.operators if made in [int(i) for i in op.inputs]), None)
    if reader is None or uses[made] != 1 or operator.builtinOptions.fusedActivationFunction != none:
        return None
    if not _can_change(model, graph, reader) or int(reader.inputs[0]) != made:
        return None
    if kind == "ADD" and _pads(model, graph, reader):
        return None
    return _Step(linear=operator, layer=reader, kind=kind, values=values, variable=variable, is_behind=False)


def _can_change(model: Any, graph: Any, operator: Any) -> bool:
    """Whether it is a layer whose stored weights and bias are its own."""
    kind = op_name(model, operator)
    if kind not in LAYERS:
        return False
    slots = [i for i in list(operator.inputs)[1:3] if i >= 0]
    if not all(has_data(model, graph.tensors[i]) and dtype_name(graph.tensors[i]) == "float32" for i in slots):
        return False
    if kind == "FULLY_CONNECTED":  # a flattened image has more columns than channels
        weights = graph.tensors[operator.inputs[1]]
        if int(weights.shape[1]) != int(graph.tensors[operator.inputs[0]].shape[-1]):
            return False
    buffers = [int(graph.tensors[i].buffer) for i in slots]
    readers = Counter(
        int(graph.tensors[i].buffer) for op in graph.operators for i in {int(i) for i in op.inputs} if i >= 0
    )
    return all(readers[buffer] == 1 for buffer in buffers)


def _pads(model: Any, graph: Any, operator: Any) -> bool:
    if op_name(model, operator) == "FULLY_CONNECTED":
        return False
    height, width = (int(size) for size in list(graph.tensors[operator.inputs[1]].shape)[1:3])
    return bool(operator.builtinOptions.padding == schema().Padding.SAME and (height > 1 or width > 1))


def _columns(kind: str, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of the inputs' channels, to be multiplied with the weights."""
    if values.size == 1:
        return values
    if kind == "DEPTHWISE_CONV_2D":
        return np.repeat(values, weights.shape[3] // len(values))
    if kind == "CONV_2D" and weights.shape[3] != len(values):
        groups = len(values) // weights.shape[3]
        by_row = np.repeat(values.reshape(groups, -1), weights.shape[0] // groups, axis=0)
        return by_row[:, None, None, :]
    return values


def _bias(model: Any, graph: Any, layer: Any, outputs: int) -> np.ndarray:
    if len(layer.inputs) < 3 or layer.inputs[2] < 0:
        return np.zeros(outputs)
    found = constant(model, graph.tensors[layer.inputs[2]])
    assert found is not None
    return found.astype(np.float64).reshape(-1)


def _set_bias(model: Any, graph: Any, layer: Any, values: np.ndarray) -> None:
    if len(layer.inputs) < 3 or layer.inputs[2] < 0:
        name = f"{tensor_name(graph.tensors[layer.inputs[1]])}/folded_bias"
        index = add_tensor(graph, name, (len(values),), "float32")
        layer.inputs = [*list(layer.inputs)[:2], index]
    tensor = graph.tensors[layer.inputs[2]]
    tensor.shape = [len(values)]
    set_constant(model, tensor, values, "float32")
