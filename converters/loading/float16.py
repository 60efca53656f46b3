"""Weights that a float file stores as float16 become float32 again."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.tflite.flatbuffer import constant, dtype_name, has_data, op_name, set_constant

__all__ = ["unpack_halves"]


def unpack_halves(model: Any) -> tuple[str, ...]:
    """Replace every DEQUANTIZE of a float16 constant by the float32 constant, in place.

    Returns:
        A note for people where anything was replaced.
    """
    count = 0
    for graph in model.subgraphs:
        kept = []
        for operator in graph.operators:
            source = graph.tensors[int(operator.inputs[0])] if len(operator.inputs) else None
            if (
                op_name(model, operator) == "DEQUANTIZE"
                and source is not None
                and dtype_name(source) == "float16"
                and has_data(model, source)
            ):
                values = constant(model, source)
                assert values is not None
                set_constant(model, graph.tensors[int(operator.outputs[0])], values.astype(np.float32), "float32")
                count += 1
            else:
                kept.append(operator)
        graph.operators = kept
    return (f"{count} weights stored as float16 were taken as float32",) if count else ()
