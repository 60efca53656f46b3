"""Pooling and reductions; means over whole images become the pools that XNNPACK takes into its delegate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from converters.importers.activations import fused
from converters.importers.build import Builder, Value
from converters.importers.convolution import Window, pad_image, same_padding
from converters.importers.tflite_read import Operator

__all__ = ["OPERATORS"]


def _shape_of_window(op: Operator) -> tuple[tuple[int, int], tuple[int, int]]:
    kernel = int(op.option("filterHeight", 1)), int(op.option("filterWidth", 1))
    return kernel, (int(op.option("strideH", 1)), int(op.option("strideW", 1)))


def _fits_torch(window: Window, kernel: tuple[int, int]) -> bool:
    return window.is_even and window.height[0] * 2 <= kernel[0] and window.width[0] * 2 <= kernel[1]


def _average(op: Operator, build: Builder) -> None:
    """AVERAGE_POOL_2D, which counts only pixels of the image."""
    import torch
    from torch import nn

    image, shape = build.image(op.inputs[0]), build.shape(op.outputs[0])
    kernel, stride = _shape_of_window(op)
    window = same_padding(op, image.shape, kernel, (1, 1))
    pool: Any
    if window.is_empty and kernel == image.shape[1:3]:
        made = build.emit(op.layer, nn.AdaptiveAvgPool2d(1), [image], shape=shape, layout="image")
    elif _fits_torch(window, kernel):
        padding = (window.height[0], window.width[0])
        pool = nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)
        made = build.emit(op.layer, pool, [image], shape=shape, layout="image")
    else:
        pool = nn.AvgPool2d(kernel, stride)
        sides = (*window.width, *window.height)
        covered = pool(nn.functional.pad(torch.ones(1, 1, *image.shape[1:3]), sides))
        shares = Value(tensor=1 / covered, shape=(1, *shape[1:3], 1), layout="image")
        padded = pad_image(op, build, image, window)
        pooled = build.emit(op.layer, pool, [padded], shape=shape, layout="image")
        made = build.emit(f"{op.layer}_shares", torch.mul, [pooled, shares], shape=shape, layout="image")
    build.set(op.outputs[0], fused(op, build, made))


def _maximum(op: Operator, build: Builder) -> None:
    """MAX_POOL_2D: a border never wins. Infinity there would spoil a later quantization: the last resort."""
    from torch import nn

    image, shape = build.image(op.inputs[0]), build.shape(op.outputs[0])
    kernel, stride = _shape_of_window(op)
    window = same_padding(op, image.shape, kernel, (1, 1))
    nonnegative = image.is_nonnegative
    module = nn.MaxPool2d(kernel, stride)
    if _fits_torch(window, kernel):
        module = nn.MaxPool2d(kernel, stride, (window.height[0], window.width[0]))
    elif nonnegative:
        image = pad_image(op, build, image, window)
    elif window.height[0] == window.width[0] == 0:
        module = nn.MaxPool2d(kernel, stride, ceil_mode=True)
    else:
        image = pad_image(op, build, image, window, float("-inf"))
    made = build.emit(op.layer, module, [image], shape=shape, layout="image", is_nonnegative=nonnegative)
    build.set(op.outputs[0], fused(op, build, made))


def _reduction(op: Operator, build: Builder) -> None:
    import torch
    from torch import nn

    value, shape = build.value(op.inputs[0]), build.shape(op.outputs[0])
    rank = len(value.shape)
    axes = tuple(sorted({int(axis) % rank for axis in build.needed(op, 1, "axes").reshape(-1)})) if rank else ()
    keep = bool(op.option("keepDims", False))
    if op.kind == "MEAN" and rank == 4 and axes == (1, 2):
        image = build.image(op.inputs[0])
        whole = (shape[0], 1, 1, image.shape[3])
        made = build.emit(op.layer, nn.AdaptiveAvgPool2d(1), [image], shape=whole, layout="image")
        if not keep:
            made = build.emit(f"{op.layer}_flatten", nn.Flatten(1), [made], shape=shape)
        build.set(op.outputs[0], made)
        return
    reduce: dict[str, Callable[[Any], Any]] = {
        "MEAN": lambda x: torch.mean(x, axes, keepdim=keep),
        "SUM": lambda x: torch.sum(x, axes, keepdim=keep, dtype=x.dtype),
        "REDUCE_MAX": lambda x: torch.amax(x, axes, keepdim=keep),
        "REDUCE_MIN": lambda x: torch.amin(x, axes, keepdim=keep),
        "REDUCE_PROD": lambda x: _product(x, axes, keep),
        "REDUCE_ANY": lambda x: torch.any(x, dim=axes, keepdim=keep),
        "REDUCE_ALL": lambda x: torch.all(x, dim=axes, keepdim=keep),
    }
    function = reduce[op.kind] if axes else (lambda x: x)
    build.set(op.outputs[0], build.emit(op.layer, function, [build.plain(op.inputs[0])], shape=shape))


def _product(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    for axis in reversed(axes):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _extreme_place(op: Operator, build: Builder) -> None:
    """ARG_MAX and ARG_MIN."""
    import torch

    axis = int(np.reshape(build.needed(op, 1, "axis"), -1)[0])
    kind = getattr(torch, build.dtype(op.outputs[0]))
    function = torch.argmax if op.kind == "ARG_MAX" else torch.argmin
    made = build.emit(
        op.layer,
        lambda x: function(x, axis).to(kind),
        [build.plain(op.inputs[0])],
        shape=build.shape(op.outputs[0]),
    )
    build.set(op.outputs[0], made)


_REDUCTIONS = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL")

OPERATORS = {
    "AVERAGE_POOL_2D": _average,
    "MAX_POOL_2D": _maximum,
    "ARG_MAX": _extreme_place,
    "ARG_MIN": _extreme_place,
    **dict.fromkeys(_REDUCTIONS, _reduction),
}
"""How each operator is built."""
