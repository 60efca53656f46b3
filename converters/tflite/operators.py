"""What the LiteRT kernels demand of each operator in full-integer INT8: one table, and the versions they register.

Which operators may become INT4, and why others are refused, stands in `support.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from converters.quantize.uniform import Affine

__all__ = ["INT4_VERSIONS", "OPERATORS", "TYPE_BLIND", "OperatorRule", "integer_version"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRule:
    """How an operator with float inputs or outputs becomes an INT8 one.

    Attributes:
        kind: "weighted": per-channel weights and INT32 bias. "same": all float inputs and outputs must share scale
            and zero point, because the kernel moves or compares stored values. "free": every tensor has its own.
            "fixed": the kernel demands `output`, whatever the range.
        weight: Position of the weights among the inputs ("weighted").
        bias: Position of the bias.
        data: Position of the activations.
        axis: Axis of the weights' output channels.
        output: Demanded scale and zero point of the output ("fixed").
        version: Operator version whose kernel takes INT8.
        symmetric: Positions of constant inputs that must have zero point 0.
        written: The operator that has an integer kernel where this one has none, and computes the same with `output`.
    """

    kind: Literal["weighted", "same", "free", "fixed"]
    weight: int = 1
    bias: int = 2
    data: int = 0
    axis: int = 0
    output: Affine | None = None
    version: int = 1
    symmetric: tuple[int, ...] = ()
    written: str = ""


def _same(version: int = 2) -> OperatorRule:
    return OperatorRule(kind="same", version=version)


def _free(version: int = 2, symmetric: tuple[int, ...] = ()) -> OperatorRule:
    return OperatorRule(kind="free", version=version, symmetric=symmetric)


def _fixed(scale: float, zero_point: int, version: int = 2) -> OperatorRule:
    return OperatorRule(kind="fixed", output=Affine(scale=scale, zero_point=zero_point), version=version)


OPERATORS: dict[str, OperatorRule] = {
    "CONV_2D": OperatorRule(kind="weighted", version=3),
    "DEPTHWISE_CONV_2D": OperatorRule(kind="weighted", axis=3, version=3),
    "FULLY_CONNECTED": OperatorRule(kind="weighted", version=4),
    "TRANSPOSE_CONV": OperatorRule(kind="weighted", weight=1, data=2, bias=3, version=2),
    "RESHAPE": _same(1),
    "SQUEEZE": _same(1),
    "EXPAND_DIMS": _same(1),
    "PAD": _same(),
    "PADV2": _same(),
    "MIRROR_PAD": _same(),
    "AVERAGE_POOL_2D": _same(),
    "MAX_POOL_2D": _same(),
    "CONCATENATION": _same(),
    "SPLIT": _same(),
    "SPLIT_V": _same(),
    "TRANSPOSE": _same(),
    "SLICE": _same(),
    "STRIDED_SLICE": _same(),
    "GATHER": _same(),
    "PACK": _same(),
    "UNPACK": _same(),
    "RESIZE_BILINEAR": _same(),
    "RESIZE_NEAREST_NEIGHBOR": _same(),
    "SPACE_TO_DEPTH": _same(),
    "DEPTH_TO_SPACE": _same(1),  # version 2 is the same kernel, but BUILTIN_REF does not register it
    "SPACE_TO_BATCH_ND": _same(),
    "BATCH_TO_SPACE_ND": _same(),
    "MAXIMUM": _same(),
    "MINIMUM": _same(),
    "REDUCE_MAX": _same(),
    "REDUCE_MIN": _same(),
    "BROADCAST_TO": _same(3),
    "TILE": _same(2),
    "ADD": _free(),
    "SUB": _free(),
    "MUL": _free(),
    "MEAN": _free(),
    "SUM": _free(),
    "SQUARED_DIFFERENCE": _free(),
    "BATCH_MATMUL": _free(symmetric=(1,)),
    "RELU": _free(),
    "RELU6": _free(),
    "RELU_N1_TO_1": _free(1),
    # No integer kernel; with this scale a RELU saturates at 1.
    "RELU_0_TO_1": OperatorRule(kind="fixed", output=Affine(scale=1 / 255, zero_point=-128), version=2, written="RELU"),
    "LEAKY_RELU": _free(1),
    "PRELU": _free(1),
    "HARD_SWISH": _free(1),
    "ABS": _free(),
    "ARG_MAX": _free(),
    "ARG_MIN": _free(),
    "ELU": _free(1),  # not registered in BUILTIN_REF
    "GELU": _free(),
    "EXP": _free(),
    "RSQRT": _free(),
    "SQRT": _free(2),
    "SOFTMAX": _fixed(1 / 256, -128),
    "LOGISTIC": _fixed(1 / 256, -128),
    "TANH": _fixed(1 / 128, 0),
    "L2_NORMALIZATION": _fixed(1 / 128, 0),
    "LOG_SOFTMAX": _fixed(16 / 256, 127),
}

# These read a tensor's shape and never its values, so any type will do.
TYPE_BLIND = ("SHAPE", "RANK")

# Versions under which the packed kernels are registered in every resolver: BUILTIN_REF knows DEPTHWISE_CONV_2D up to 6.
INT4_VERSIONS = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 10}


# Versions whose kernels take INT16 activations; where none is listed, the INT8 version also does.
INT16_VERSIONS = {
    "CONV_2D": 4, "DEPTHWISE_CONV_2D": 5, "FULLY_CONNECTED": 7, "TRANSPOSE_CONV": 3, "ADD": 2, "SUB": 5, "MUL": 4,
    "AVERAGE_POOL_2D": 3, "MAX_POOL_2D": 3, "CONCATENATION": 3, "SOFTMAX": 3, "LOGISTIC": 3, "TANH": 3, "MEAN": 3,
    "PAD": 3, "PADV2": 3, "TRANSPOSE": 4, "SLICE": 4, "STRIDED_SLICE": 4, "BATCH_MATMUL": 3, "MAXIMUM": 4,
    "MINIMUM": 4, "RESIZE_BILINEAR": 3, "RESIZE_NEAREST_NEIGHBOR": 3, "LEAKY_RELU": 2, "RELU": 3, "RELU6": 3,
    "SPLIT": 4, "GATHER": 4, "PACK": 3, "UNPACK": 4, "REDUCE_MAX": 3, "REDUCE_MIN": 3, "EXP": 2, "RSQRT": 3,
}  # fmt: skip


def integer_version(op: str, old: int, *, weight_bits: int = 8, activation_bits: int = 8, grouped: bool = False) -> int:
    """Version of the INT8 operator `op` whose float version was `old`.

    A feature that demanded the old version (half-pixel resizing, broadcasting over five dimensions, ...) still does.

    Args:
        grouped: A CONV_2D with groups, which kernels before version 6 computed wrongly.
    """
    version = max(OPERATORS[op].version, old)
    if weight_bits == 4:
        version = max(version, INT4_VERSIONS[op])
    if activation_bits == 16:
        version = max(version, INT16_VERSIONS.get(OPERATORS[op].written or op, 1))
    if grouped:
        version = max(version, 6)
    return version
