"""Convolutions and fully connected layers as torch modules with weights in torch's order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.importers.activations import fused
from converters.importers.build import Builder, Value
from converters.importers.tflite_read import Operator

__all__ = ["OPERATORS", "Window", "pad_image", "same_padding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Padding in pixels: (before, after) for height and width."""

    height: tuple[int, int]
    width: tuple[int, int]

    @property
    def is_even(self) -> bool:
        """As much before as after, which torch's modules can do themselves."""
        return self.height[0] == self.height[1] and self.width[0] == self.width[1]

    @property
    def is_empty(self) -> bool:
        """No padding at all."""
        return not any((*self.height, *self.width))


def same_padding(op: Operator, shape: tuple[int, ...], kernel: tuple[int, int], dilation: tuple[int, int]) -> Window:
    """What TFLite's padding means for an input of `shape` (NHWC); with SAME an odd pixel goes behind."""
    if op.option("padding", 0) == 1:
        return Window(height=(0, 0), width=(0, 0))
    sides = []
    for size, window, step, stride in zip(shape[1:3], kernel, dilation, _strides(op), strict=True):
        total = max((-(-size // stride) - 1) * stride + (window - 1) * step + 1 - size, 0)
        sides.append((total // 2, total - total // 2))
    return Window(height=sides[0], width=sides[1])


def pad_image(op: Operator, build: Builder, image: Value, window: Window, fill: float = 0.0) -> Value:
    """`image` with a border of `fill`."""
    from torch import nn

    if window.is_empty:
        return image
    batch, height, width, channels = image.shape
    shape = (batch, height + sum(window.height), width + sum(window.width), channels)
    sides = (*window.width, *window.height)
    module = nn.ZeroPad2d(sides) if fill == 0 else nn.ConstantPad2d(sides, fill)
    return build.emit(f"{op.layer}_pad", module, [image], shape=shape, layout="image")


def _strides(op: Operator) -> tuple[int, int]:
    return int(op.option("strideH", 1)), int(op.option("strideW", 1))


def _convolution(op: Operator, build: Builder) -> None:
    """CONV_2D, also grouped, and DEPTHWISE_CONV_2D."""
    from torch import nn

    image = build.image(op.inputs[0])
    weights = build.needed(op, 1, "weights")
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    kernel = (weights.shape[1], weights.shape[2])
    dilation = int(op.option("dilationHFactor", 1)) or 1, int(op.option("dilationWFactor", 1)) or 1
    inputs = image.shape[3]
    outputs = weights.shape[3] if depthwise else weights.shape[0]
    groups = inputs if depthwise else inputs // weights.shape[3]
    if outputs % groups or (not depthwise and groups * weights.shape[3] != inputs):
        raise op.refuse(f"weights of shape {weights.shape} do not fit {inputs} input channels")
    window = same_padding(op, image.shape, kernel, dilation)
    if not window.is_even:
        image = pad_image(op, build, image, window)
    padding = (window.height[0], window.width[0]) if window.is_even else (0, 0)
    module = nn.utils.skip_init(
        nn.Conv2d,
        inputs,
        outputs,
        kernel,
        stride=_strides(op),
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=build.has(op, 2),
    )
    module.weight = build.parameter(op.inputs[1], op.kind, _depthwise_weights if depthwise else _conv_weights)
    _set_bias(op, build, module)
    made = build.emit(op.layer, module, [image], shape=build.shape(op.outputs[0]), layout="image")
    build.set(op.outputs[0], fused(op, build, made))


def _conv_weights(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 3, 1, 2)


def _depthwise_weights(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 0, 1, 2)


def _set_bias(op: Operator, build: Builder, module: Any) -> None:
    if build.has(op, 2):
        build.needed(op, 2, "bias")
        module.bias = build.parameter(op.inputs[2], "bias", lambda array: array.reshape(-1))


def _transposed(op: Operator, build: Builder) -> None:
    """TRANSPOSE_CONV: torch computes every pixel that any input touches, TFLite keeps a window of them."""
    from torch import nn

    weights = build.needed(op, 1, "weights")
    image, shape = build.image(op.inputs[2]), build.shape(op.outputs[0])
    outputs, height, width, inputs = weights.shape
    strides = _strides(op)
    reached = tuple(
        (size - 1) * stride + window
        for size, stride, window in zip(image.shape[1:3], strides, (height, width), strict=True)
    )
    # Pixels that no input reaches, behind the others: they hold the bias alone.
    behind = tuple(max(wanted - size, 0) for wanted, size in zip(shape[1:3], reached, strict=True))
    if any(extra >= stride for extra, stride in zip(behind, strides, strict=True)):
        raise op.refuse(f"output {shape[1:3]} is larger than the {reached} pixels that its inputs reach")
    has_bias = build.has(op, 3)
    module = nn.utils.skip_init(
        nn.ConvTranspose2d,
        inputs,
        outputs,
        (height, width),
        stride=strides,
        output_padding=behind,
        bias=has_bias,
    )
    module.weight = build.parameter(op.inputs[1], op.kind, lambda array: array.transpose(3, 0, 1, 2))
    if has_bias:
        build.needed(op, 3, "bias")
        module.bias = build.parameter(op.inputs[3], "bias", lambda array: array.reshape(-1))
    full = tuple(size + extra for size, extra in zip(reached, behind, strict=True))
    made = build.emit(op.layer, module, [image], shape=(shape[0], *full, outputs), layout="image")
    top, left = (
        0 if op.option("padding", 0) == 1 else (size - wanted) // 2
        for size, wanted in zip(full, shape[1:3], strict=True)
    )
    if full != shape[1:3]:
        bottom, right = top + shape[1], left + shape[2]
        made = build.emit(
            f"{op.layer}_crop", lambda x: x[:, :, top:bottom, left:right], [made], shape=shape, layout="image"
        )
    build.set(op.outputs[0], fused(op, build, made))


def _fully_connected(op: Operator, build: Builder) -> None:
    import torch
    from torch import nn

    if op.option("weightsFormat", 0) != 0:
        raise op.refuse("its weights are shuffled for a certain processor", "convert the model again")
    outputs, inputs = build.shape(op.inputs[1])
    source = build.value(op.inputs[0])
    shape = build.shape(op.outputs[0])
    if op.option("keepNumDims", False):
        value = build.plain(op.inputs[0])
    elif source.shape and source.shape[0] * inputs == int(np.prod(source.shape)):
        value = build.rows(op.inputs[0])
    else:
        value = build.plain(op.inputs[0])
        rows = int(np.prod(source.shape)) // inputs
        value = build.emit(f"{op.layer}_rows", lambda x: x.reshape(-1, inputs), [value], shape=(rows, inputs))
    if build.constant(op.inputs[1]) is None:
        values = [value, build.plain(op.inputs[1])]
        if build.has(op, 2):
            values.append(build.plain(op.inputs[2]))
        made = build.emit(op.layer, torch.nn.functional.linear, values, shape=shape)
    else:
        module = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=build.has(op, 2))
        module.weight = build.parameter(op.inputs[1], op.kind, lambda array: array)
        _set_bias(op, build, module)
        made = build.emit(op.layer, module, [value], shape=shape)
    build.set(op.outputs[0], fused(op, build, made))


OPERATORS = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _fully_connected,
}
"""How each operator is built."""
