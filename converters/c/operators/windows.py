"""Windows that slide over an image: sizes, padding, activations, and how far outputs may run over inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.c.graph import Node, Tensor
from converters.c.operators.refusal import refuse

__all__ = ["Window", "activation_range", "read_before_written", "window_of"]

SAME = 0
NONE, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The ed_window of the C code."""

    batches: int
    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int
    in_zero: int

    @property
    def initializer(self) -> str:
        """As C initializer, in the order of ed_window."""
        sizes = (self.batches, self.in_h, self.in_w, self.in_c, self.out_h, self.out_w, self.kernel_h, self.kernel_w)
        steps = (self.stride_h, self.stride_w, self.dilation_h, self.dilation_w, self.pad_top, self.pad_left)
        return "{" + ", ".join(map(str, (*sizes, *steps, self.in_zero))) + "}"


def window_of(node: Node, x: Tensor, out: Tensor, kernel: tuple[int, int]) -> Window:
    """The window of a convolution or a pooling.

    Raises:
        Unsupported: The tensors are not images.
    """
    if len(x.shape) != 4 or len(out.shape) != 4:
        raise refuse(node, f"takes shape {x.shape}; images [batch, height, width, channels] are written")
    (kernel_h, kernel_w), padding = kernel, node.option("padding", SAME)
    stride_h, stride_w = int(node.option("strideH", 1)), int(node.option("strideW", 1))
    dilation_h = max(1, int(node.option("dilationHFactor", 1)))
    dilation_w = max(1, int(node.option("dilationWFactor", 1)))

    def before(size: int, made: int, taps: int, stride: int, dilation: int) -> int:
        reach = (taps - 1) * dilation + 1
        return max((made - 1) * stride + reach - size, 0) // 2 if padding == SAME else 0

    return Window(
        batches=x.shape[0],
        in_h=x.shape[1],
        in_w=x.shape[2],
        in_c=x.shape[3],
        out_h=out.shape[1],
        out_w=out.shape[2],
        kernel_h=kernel_h,
        kernel_w=kernel_w,
        stride_h=stride_h,
        stride_w=stride_w,
        dilation_h=dilation_h,
        dilation_w=dilation_w,
        pad_top=before(x.shape[1], out.shape[1], kernel_h, stride_h, dilation_h),
        pad_left=before(x.shape[2], out.shape[2], kernel_w, stride_w, dilation_w),
        in_zero=x.zero,
    )


def activation_range(node: Node, out: Tensor) -> tuple[int, int]:
    """Smallest and largest INT8 output under the fused activation.

    Raises:
        Unsupported: An activation that is no clamp.
    """
    kind = int(node.option("fusedActivationFunction", NONE))
    bounds = {NONE: (None, None), RELU: (0.0, None), RELU_N1_TO_1: (-1.0, 1.0), RELU6: (0.0, 6.0)}
    if kind not in bounds:
        raise refuse(node, "has a fused activation that is no clamp", "write the activation as an operator")

    def quantized(value: float) -> int:
        # As CalculateActivationRangeQuantized: the quotient is taken and rounded in single precision.
        quotient = np.float32(value) / out.scale[0]
        return out.zero + int(np.sign(quotient) * np.floor(np.abs(np.float64(quotient)) + 0.5))

    low, high = bounds[kind]
    return (
        -128 if low is None else max(-128, quantized(low)),
        127 if high is None else min(127, quantized(high)),
    )


def read_before_written(window: Window, x: Tensor, out: Tensor) -> int:
    """How many bytes before its input an output must begin so that no value is overwritten that is still to be read.

    Pixels are made in order and two at a time, each from a window whose first value stands at a known place; while two
    pixels are written their own windows may be read again.
    """
    width = out.shape[3]
    oy, ox = np.divmod(np.arange(window.out_h * window.out_w), window.out_w)
    iy = np.maximum(oy * window.stride_h - window.pad_top, 0)
    ix = np.maximum(ox * window.stride_w - window.pad_left, 0)
    one = (iy * window.in_w + ix) * window.in_c
    batch = np.arange(window.batches)[:, None]
    first = (one + batch * window.in_h * window.in_w * window.in_c).reshape(-1)
    still = np.minimum.accumulate(first[::-1])[::-1]
    written = np.minimum(np.arange(len(first)) + 2, len(first)) * width
    return int((written - still).max())
