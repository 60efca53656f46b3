"""Which kernel library of LiteRT runs an operator on a CPU: XNNPACK where its delegate takes it, else the builtins.

The rules are what the runtime's own profiler shows for ai-edge-litert 2.3 on x86; `litert_profiler_test` compares
them with it. XNNPACK decides operator by operator; a rule says what it does with the types, not with every shape.
"""

from __future__ import annotations

from runtimes.formats.tflite_file import FileOperator, FileSubgraph, FileTensor
from runtimes.formats.tflite_layers import Weights

__all__ = ["kernel_library"]

BYTES = ("int8", "uint8")
# Float operators that the delegate takes, with the integer types that it takes as well.
XNNPACK_TYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "ADD", "SUB", "MUL", "MEAN", "PAD",
         "MAX_POOL_2D", "RESHAPE", "RESIZE_BILINEAR", "CONCATENATION", "SPLIT", "STRIDED_SLICE", "TRANSPOSE",
         "DEPTH_TO_SPACE", "SLICE", "LOGISTIC", "TANH", "LEAKY_RELU", "ELU", "SPACE_TO_DEPTH", "EXPAND_DIMS",
         "QUANTIZE", "DEQUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "SUM", "MAXIMUM", "MINIMUM", "BATCH_MATMUL"),
        ("float32", *BYTES)),
    **dict.fromkeys(
        ("ABS", "AVERAGE_POOL_2D", "CEIL", "COS", "DIV", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LOG", "NEG",
         "PRELU", "ROUND", "RSQRT", "SIN", "SOFTMAX", "SQRT", "SQUARE", "SQUARED_DIFFERENCE"),
        ("float32",)),
}  # fmt: skip
WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")
# (operator, type of the activations, type of the weights) that the delegate takes.
WEIGHT_TYPES = {
    *((op, kind, kind) for op in WITH_WEIGHTS for kind in ("float32", *BYTES)),
    *((op, "float32", "float16") for op in WITH_WEIGHTS),
    *((op, "float32", "int8") for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")),
    ("FULLY_CONNECTED", "float32", "int4"),
    ("FULLY_CONNECTED", "int8", "int4"),
}


def kernel_library(graph: FileSubgraph, operator: FileOperator, weights: Weights | None) -> str:
    """ "XNNPACK", "builtin", or "custom" for an operator that the runtime must be given."""
    if operator.op.startswith("CUSTOM"):
        return "custom"
    values = [graph.tensors[i] for i in operator.inputs if 0 <= i < len(graph.tensors)]
    if not values or not operator.outputs or not 0 <= operator.outputs[0] < len(graph.tensors):
        return "builtin"
    types = XNNPACK_TYPES.get(operator.op, ())
    activation = values[2] if operator.op == "TRANSPOSE_CONV" and len(values) > 2 else values[0]
    if weights is not None and operator.op in WITH_WEIGHTS:
        taken = (operator.op, activation.dtype, weights.tensor.dtype) in WEIGHT_TYPES
        return "XNNPACK" if taken and _int4_rows_are_even(weights.tensor) else "builtin"
    made = graph.tensors[operator.outputs[0]].dtype
    return "XNNPACK" if activation.dtype in types and made in types else "builtin"


def _int4_rows_are_even(weights: FileTensor) -> bool:
    # Two weights share a byte; the delegate refuses rows that end within one.
    return weights.dtype != "int4" or not weights.shape or weights.shape[-1] % 2 == 0
