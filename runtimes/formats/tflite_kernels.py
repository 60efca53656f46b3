"""Which kernel library of LiteRT runs an operator on a CPU: XNNPACK where its delegate takes it, else the builtins.

The rules are what the runtime's own profiler shows for ai-edge-litert 2.3 on x86, operator by operator and type by
type; `litert_profiler_test` holds them against it. They speak of constant shapes: a model whose shapes are computed
may lose further operators to the builtins.
"""

from __future__ import annotations

from runtimes.formats.tflite_file import FileOperator, FileSubgraph, FileTensor, TfliteFile
from runtimes.formats.tflite_layers import Weights, is_constant

__all__ = ["kernel_library"]

BYTES = ("int8", "uint8")
# Operators that the delegate takes, with their types.
XNNPACK_TYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("ADD", "SUB", "MUL", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "PAD", "MAX_POOL_2D", "RESHAPE",
         "RESIZE_BILINEAR", "CONCATENATION", "SPLIT", "STRIDED_SLICE", "SLICE", "TRANSPOSE", "DEPTH_TO_SPACE",
         "SPACE_TO_DEPTH", "LOGISTIC", "TANH", "LEAKY_RELU", "ELU", "QUANTIZE", "DEQUANTIZE", "BATCH_MATMUL"),
        ("float32", *BYTES)),
    **dict.fromkeys(
        ("ABS", "AVERAGE_POOL_2D", "CEIL", "COS", "DIV", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LOG", "MAXIMUM",
         "MINIMUM", "NEG", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIN", "SOFTMAX", "SQRT",
         "SQUARE", "SQUARED_DIFFERENCE"),
        ("float32",)),
}  # fmt: skip
WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
# (operator, type of activations, type of weights) that the delegate takes; INT4 convolutions are not among them.
WEIGHT_TYPES = {
    *((op, kind, kind) for op in WITH_WEIGHTS for kind in ("float32", *BYTES)),
    *((op, "float32", "float16") for op in WITH_WEIGHTS),
    ("CONV_2D", "float32", "int8"),
    ("FULLY_CONNECTED", "float32", "int8"),
    ("FULLY_CONNECTED", "float32", "int4"),
    ("FULLY_CONNECTED", "int8", "int4"),
}
# Inputs that must be constant, because the delegate plans with their values.
PLANNED_INPUT = {"RESHAPE": 1, "TRANSPOSE_CONV": 0, "PAD": 1, "MEAN": 1, "SUM": 1, "TRANSPOSE": 1, "RESIZE_BILINEAR": 1}
MOST_CONCATENATED = 5


def kernel_library(model: TfliteFile, graph: FileSubgraph, operator: FileOperator, weights: Weights | None) -> str:
    """ "XNNPACK", "builtin", or "custom" for an operator that the runtime must be given."""
    if operator.op.startswith("CUSTOM"):
        return "custom"
    values = [graph.tensors[i] for i in operator.inputs if 0 <= i < len(graph.tensors)]
    if not values or not operator.outputs or not 0 <= operator.outputs[0] < len(graph.tensors):
        return "builtin"
    if not _shape_is_planned(model, operator, values) or _is_refused(graph, operator, values):
        return "builtin"
    activation = values[2] if operator.op == "TRANSPOSE_CONV" and len(values) > 2 else values[0]
    if operator.op in WITH_WEIGHTS:
        kind = weights.tensor.dtype if weights is not None else activation.dtype
        return "XNNPACK" if (operator.op, activation.dtype, kind) in WEIGHT_TYPES else "builtin"
    types = XNNPACK_TYPES.get(operator.op, ())
    if operator.op == "DEQUANTIZE" and activation.dtype == "float16" and is_constant(model, activation):
        return "XNNPACK"  # a constant that a builtin kernel reads is widened by a builtin; we do not look behind it
    made = graph.tensors[operator.outputs[0]].dtype
    return "XNNPACK" if activation.dtype in types and made in types else "builtin"


def _shape_is_planned(model: TfliteFile, operator: FileOperator, values: list[FileTensor]) -> bool:
    place = PLANNED_INPUT.get(operator.op)
    return place is None or place >= len(values) or is_constant(model, values[place])


def _is_refused(graph: FileSubgraph, operator: FileOperator, values: list[FileTensor]) -> bool:
    """Shapes, counts and quantization that the delegate does not take."""
    made = graph.tensors[operator.outputs[0]]
    read = operator.options_table
    match operator.op:
        case "FULLY_CONNECTED":
            # Two weights share a byte, and no row may end within one.
            return len(values) > 1 and values[1].dtype == "int4" and _ends_within_a_byte(values[1])
        case "CONCATENATION":
            return len(values) > MOST_CONCATENATED
        case "MAX_POOL_2D" | "AVERAGE_POOL_2D":
            size = (read("FilterHeight"), read("FilterWidth"))
            return size == (1, 1) and (read("StrideH"), read("StrideW")) != (1, 1)
        case "BATCH_MATMUL":
            right = values[1] if len(values) > 1 else values[0]
            return right.dtype in BYTES and bool(right.zero_point.any())
        case "QUANTIZE":
            return values[0].dtype != "float32" and values[0].dtype != made.dtype
        case _:
            return False


def _ends_within_a_byte(weights: FileTensor) -> bool:
    return bool(weights.shape) and weights.shape[-1] % 2 == 1
