"""Equivalent graphs that quantize better: float16 widened, divisions as products, pads and poolings that keep bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.tflite.flatbuffer import (
    add_buffer,
    add_opcode,
    add_tensor,
    constant,
    dtype_name,
    op_name,
    schema,
    tensor_name,
    tensor_type,
)
from converters.tflite.pool_means import pool_to_mean
from converters.tflite.pool_pads import pad_with_zeros

__all__ = ["BECOME_PRODUCTS", "simplify"]

# NEG in INT8 ignores zero points in every kernel set, SQUARE has no INT8 kernel.
BECOME_PRODUCTS = ("NEG", "SQUARE")


def simplify(model: Any) -> None:
    """Edit the float model in place; outputs stay what they were, up to the rounding of one float32 product."""
    for graph in model.subgraphs:
        kept = []
        for operator in graph.operators:
            kind = op_name(model, operator)
            if kind == "DEQUANTIZE" and _widened(model, graph, operator):
                continue
            if kind in BECOME_PRODUCTS and dtype_name(graph.tensors[operator.inputs[0]]) == "float32":
                factor = operator.inputs[0] if kind == "SQUARE" else _minus_one(model, graph)
                _become_product(model, operator, [operator.inputs[0], factor], None)
            elif kind == "PADV2":
                pad_with_zeros(model, graph, operator)
            elif kind == "AVERAGE_POOL_2D":
                pool_to_mean(model, graph, operator)
            elif kind == "DIV":
                _divide_by_constant(model, graph, operator)
            kept.append(operator)
        graph.operators = kept


def _widened(model: Any, graph: Any, operator: Any) -> bool:
    """Turn the result of dequantizing a stored float16 constant into a stored float32 constant."""
    source, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    if dtype_name(source) != "float16":
        return False
    values = constant(model, source)
    if values is None:
        return False
    result.type = tensor_type("float32")
    result.buffer = add_buffer(model, values.astype(np.float32))
    return True


def _minus_one(model: Any, graph: Any) -> int:
    index = add_tensor(graph, f"minus_one_{len(graph.tensors)}", (1,), "float32")
    graph.tensors[index].buffer = add_buffer(model, np.full(1, -1, np.float32))
    return index


def _divide_by_constant(model: Any, graph: Any, operator: Any) -> None:
    divisor = graph.tensors[operator.inputs[1]]
    values = constant(model, divisor) if dtype_name(divisor) == "float32" else None
    if values is None or not np.all(values):
        return
    index = add_tensor(graph, f"{tensor_name(divisor)}_reciprocal_{len(graph.tensors)}", values.shape, "float32")
    graph.tensors[index].buffer = add_buffer(model, (1.0 / values.astype(np.float64)).astype(np.float32))
    activation = operator.builtinOptions.fusedActivationFunction if operator.builtinOptions is not None else 0
    _become_product(model, operator, [operator.inputs[0], index], activation)


def _become_product(model: Any, operator: Any, inputs: list[int], activation: int | None) -> None:
    fb = schema()
    operator.opcodeIndex = add_opcode(model, "MUL", 1)
    operator.inputs = inputs
    operator.builtinOptionsType = fb.BuiltinOptions.MulOptions
    operator.builtinOptions = fb.MulOptionsT()
    operator.builtinOptions.fusedActivationFunction = activation or 0
