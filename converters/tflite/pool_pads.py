"""The pad before a max pooling: -infinity in float, which no INT8 tensor holds and none needs.

PyTorch's MaxPool2d(3, 2, padding=1), the stem of every ResNet, is exported as a PADV2 with -infinity and a pooling.
Behind a ReLU a pad of zeros gives the same maxima, as every window has a value of at least zero, and XNNPACK runs it.
Elsewhere the lowest stored integer takes the place of -infinity, which no value in the window is below.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.tflite.flatbuffer import add_opcode, constant, op_name, schema

__all__ = ["LOWEST", "is_lowest_pad", "pad_with_zeros"]

LOWEST = -3.0e38  # some converters write the lowest float32 instead of -infinity


def is_lowest_pad(model: Any, graph: Any, operator: Any) -> bool:
    """Whether an operator pads with -infinity."""
    if op_name(model, operator) != "PADV2":
        return False
    values = constant(model, graph.tensors[operator.inputs[2]])
    return values is not None and values.dtype == np.float32 and bool(values.size) and bool((values <= LOWEST).all())


def pad_with_zeros(model: Any, graph: Any, operator: Any) -> None:
    """Make a pad with -infinity between a ReLU and poolings by maximum a pad with zeros, in place."""
    if not is_lowest_pad(model, graph, operator):
        return
    made_by = [other for other in graph.operators if operator.inputs[0] in other.outputs]
    read_by = [other for other in graph.operators if operator.outputs[0] in other.inputs]
    is_output = operator.outputs[0] in graph.outputs
    if is_output or not made_by or not _is_never_negative(model, made_by[0]):
        return
    if not read_by or any(op_name(model, other) != "MAX_POOL_2D" for other in read_by):
        return
    fb = schema()
    operator.opcodeIndex = add_opcode(model, "PAD", 1)
    operator.inputs = list(operator.inputs[:2])
    operator.builtinOptionsType, operator.builtinOptions = fb.BuiltinOptions.PadOptions, fb.PadOptionsT()


def _is_never_negative(model: Any, operator: Any) -> bool:
    kinds = schema().ActivationFunctionType
    fused = getattr(operator.builtinOptions, "fusedActivationFunction", kinds.NONE)
    return fused in (kinds.RELU, kinds.RELU6) or op_name(model, operator) in ("RELU", "RELU6", "LOGISTIC")
