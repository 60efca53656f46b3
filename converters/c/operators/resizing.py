"""Convolutions that enlarge, bilinear resizing, and the place of the largest or smallest value."""

from __future__ import annotations

import math
from dataclasses import replace

from converters.c.graph import Node
from converters.c.operators.elementwise import int8_pair
from converters.c.operators.matrix import channel_scales, matrix_of
from converters.c.operators.refusal import refuse
from converters.c.operators.windows import SAME, Window
from converters.c.step import Step, buffer

__all__ = ["BUILDERS"]

UNIT = 1 << 10


def transpose_convolution(node: Node) -> Step:
    """TRANSPOSE_CONV."""
    weights, x, out = node.inputs[1], node.inputs[2], node.outputs[0]
    bias = node.inputs[3] if len(node.inputs) > 3 else None
    assert weights is not None and x is not None
    if weights.dtype != "int8":
        raise refuse(node, f"has {weights.dtype} weights; INT8 is written", "quantize its weights to INT8")
    plain = replace(node, inputs=(x, weights, bias))
    channels, kernel_h, kernel_w, depth = weights.shape
    strides = int(node.option("strideH", 1)), int(node.option("strideW", 1))
    same = node.option("padding", SAME) == SAME

    def before(made: int, taps: int, stride: int) -> int:
        steps = -(-made // stride) if same else (made + stride - taps) // stride
        return max((steps - 1) * stride + taps - made, 0) // 2

    window = Window(
        batches=x.shape[0],
        in_h=x.shape[1],
        in_w=x.shape[2],
        in_c=depth,
        out_h=out.shape[1],
        out_w=out.shape[2],
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h=1,
        dilation_w=1,
        pad_top=before(out.shape[1], kernel_h, strides[0]),
        pad_left=before(out.shape[2], kernel_w, strides[1]),
        in_zero=x.zero,
    )
    scales = channel_scales(plain, x, weights, out, channels)
    text, constants = matrix_of(plain, scales, channels=channels)
    return Step(
        node=node,
        call=f"ed_transpose_conv2d(&<p0>, {buffer(x)}, {buffer(out)});",
        constants=constants,
        structures=(("ed_conv", f"{{{text}, {window.initializer}}}"),),
    )


def resize_bilinear(node: Node) -> Step:
    """RESIZE_BILINEAR with ten bits of fraction, as the reference kernel of integers has it."""
    x, out = int8_pair(node)
    if x.scale[0] != out.scale[0] or x.zero != out.zero:
        raise refuse(node, "gives another scale than it takes", "requantize before it")
    aligned, half = bool(node.option("alignCorners", False)), bool(node.option("halfPixelCenters", False))

    def scale(given: int, made: int) -> int:
        if aligned and made > 1:
            return (UNIT * (given - 1) + (made - 1) // 2) // (made - 1)
        return (UNIT * given + made // 2) // made

    sizes = (x.shape[0], x.shape[1], x.shape[2], x.shape[3], out.shape[1], out.shape[2])
    scales = (scale(x.shape[1], out.shape[1]), scale(x.shape[2], out.shape[2]), int(half))
    return Step(
        node=node,
        call=f"ed_resize_bilinear(&<p0>, {buffer(x)}, {buffer(out)});",
        structures=(("ed_resize", "{" + ", ".join(map(str, (*sizes, *scales))) + "}"),),
    )


def place_of_extreme(node: Node) -> Step:
    """ARG_MAX and ARG_MIN; of equal values the first."""
    x, axis, out = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None
    if x.dtype != "int8" or out.dtype != "int32":
        raise refuse(node, f"takes {x.dtype} and gives {out.dtype}; INT8 and int32 are written")
    if axis is None or axis.values is None:
        raise refuse(node, "its axis is computed", "keep it constant")
    along = int(axis.values.reshape(-1)[0]) % len(x.shape)
    outer, inner = math.prod(x.shape[:along]), math.prod(x.shape[along + 1 :])
    sign = 1 if node.op == "ARG_MAX" else -1
    numbers = f"{sign}, {outer}, {x.shape[along]}, {inner}"
    return Step(node=node, call=f"ed_place_of_extreme({numbers}, {buffer(x)}, {buffer(out)});")


BUILDERS = {
    "TRANSPOSE_CONV": transpose_convolution,
    "RESIZE_BILINEAR": resize_bilinear,
    "ARG_MAX": place_of_extreme,
    "ARG_MIN": place_of_extreme,
}
