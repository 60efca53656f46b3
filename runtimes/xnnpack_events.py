"""Which layer of a .tflite file an XNNPACK profiler event belongs to.

XNNPACK names its own operators, in order, after it has fused and rewritten the graph: a 1x1 convolution runs as a
fully connected operator, a padding disappears into the convolution behind it, a fused activation becomes a clamp of
its own. Events are therefore aligned with the file's operators as two sequences of which each has gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

__all__ = ["assign_events"]

# Start of an event's name → the operators it may stand for; the first that fits counts.
STANDS_FOR: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Fully Connected", ("FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL")),
    ("Batch Matrix Multiply", ("BATCH_MATMUL", "FULLY_CONNECTED")),
    ("Convolution", ("CONV_2D", "DEPTHWISE_CONV_2D")),
    ("Deconvolution", ("TRANSPOSE_CONV",)),
    ("Max Pooling", ("MAX_POOL_2D",)),
    ("Average Pooling", ("AVERAGE_POOL_2D", "MEAN")),
    ("Global Average Pooling", ("MEAN", "AVERAGE_POOL_2D")),
    ("Mean", ("MEAN",)),
    ("Sum", ("SUM",)),
    ("Constant Pad", ("PAD", "PADV2")),
    ("Add", ("ADD",)),
    ("Subtract", ("SUB",)),
    ("Multiply", ("MUL",)),
    ("Divide", ("DIV",)),
    ("Maximum", ("MAXIMUM",)),
    ("Minimum", ("MINIMUM",)),
    ("Squared Difference", ("SQUARED_DIFFERENCE",)),
    ("Clamp", ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")),
    ("Sigmoid", ("LOGISTIC",)),
    ("Softmax", ("SOFTMAX",)),
    ("Tanh", ("TANH",)),
    ("HardSwish", ("HARD_SWISH",)),
    ("Leaky ReLU", ("LEAKY_RELU",)),
    ("PReLU", ("PRELU",)),
    ("ELU", ("ELU",)),
    ("GELU", ("GELU",)),
    ("Abs", ("ABS",)),
    ("Negate", ("NEG",)),
    ("Square Root", ("SQRT",)),
    ("Reciprocal Square Root", ("RSQRT",)),
    ("Square", ("SQUARE",)),
    ("Resize Bilinear", ("RESIZE_BILINEAR",)),
    ("Static Reshape", ("RESHAPE", "EXPAND_DIMS", "SQUEEZE")),
    ("Copy", ("RESHAPE", "EXPAND_DIMS", "SQUEEZE", "CONCATENATION")),
    ("Concatenate", ("CONCATENATION",)),
    ("Transpose", ("TRANSPOSE",)),
    ("Static Slice", ("STRIDED_SLICE", "SLICE")),
    ("Slice", ("STRIDED_SLICE", "SLICE", "SPLIT")),
    ("Even Split", ("SPLIT",)),
    ("Depth To Space", ("DEPTH_TO_SPACE",)),
    ("Space To Depth", ("SPACE_TO_DEPTH",)),
    ("Convert", ("QUANTIZE", "DEQUANTIZE")),
)
# Operators that carry the time; a match of one outweighs any number of reshapes and clamps around it.
HEAVY = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "BATCH_MATMUL", "TRANSPOSE_CONV")
HEAVY_WEIGHT = 16


def assign_events(events: Sequence[str], operators: Sequence[str]) -> tuple[int | None, ...]:
    """For each event, in order of execution, the index of the operator it belongs to.

    An event without a counterpart belongs to the operator before it, a conversion of its input to the one behind.
    None where no event has a counterpart at all.

    Args:
        operators: Names of the operators that the delegate may have taken, in order.
    """
    matched = _align(events, operators)
    result: list[int | None] = list(matched)
    behind: int | None = next((index for index in matched if index is not None), None)
    for place, event in enumerate(events):
        following = next((index for index in matched[place:] if index is not None), None)
        if matched[place] is not None:
            behind = matched[place]
        elif event.startswith("Convert") and following is not None:
            result[place] = following
        else:
            result[place] = behind
    return tuple(result)


@cache
def _weight(event: str, operator: str) -> int:
    for start, stands_for in STANDS_FOR:
        if event.startswith(start):
            if operator not in stands_for:
                return 0
            if operator in HEAVY:
                # A depthwise convolution says so in its name; others do not.
                return HEAVY_WEIGHT + (("DWConv" in event) == (operator == "DEPTHWISE_CONV_2D"))
            return 1
    return 0


def _align(events: Sequence[str], operators: Sequence[str]) -> list[int | None]:
    """The heaviest common subsequence of the two, by dynamic programming."""
    best = [[0] * (len(operators) + 1) for _ in range(len(events) + 1)]
    for e in range(len(events) - 1, -1, -1):
        for o in range(len(operators) - 1, -1, -1):
            weight = _weight(events[e], operators[o])
            both = best[e + 1][o + 1] + weight if weight else 0
            best[e][o] = max(both, best[e + 1][o], best[e][o + 1])
    matched: list[int | None] = [None] * len(events)
    e = o = 0
    while e < len(events) and o < len(operators):
        weight = _weight(events[e], operators[o])
        if weight and best[e][o] == best[e + 1][o + 1] + weight:
            matched[e] = o
            e, o = e + 1, o + 1
        elif best[e][o] == best[e + 1][o]:
            e += 1
        else:
            o += 1
    return matched
