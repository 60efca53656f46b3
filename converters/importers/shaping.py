"""Operators that move, cut and join values without computing; on held images their axes are mapped, not permuted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from converters.importers.activations import fused
from converters.importers.build import IMAGE_AXES, TO_IMAGE, TO_PLAIN, Builder, Value
from converters.importers.elementwise import together
from converters.importers.tflite_read import Operator

__all__ = ["OPERATORS"]


def _reshape(op: Operator, build: Builder) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: the file says the output's shape."""
    shape = build.shape(op.outputs[0])
    value = build.value(op.inputs[0])
    if len(shape) == 2 and value.shape and shape[0] == value.shape[0]:
        build.set(op.outputs[0], build.rows(op.inputs[0]))
        return
    single_pixel = len(shape) == 4 and shape[1] == shape[2] == 1
    if single_pixel and len(value.shape) == 2 and value.shape[0] == shape[0]:
        channels = shape[3]
        made = build.emit(
            op.layer, lambda x: x.reshape(x.shape[0], channels, 1, 1), [value], shape=shape, layout="image"
        )
        build.set(op.outputs[0], made)
        return
    if value.is_image and value.shape == shape:
        build.set(op.outputs[0], value)
        return
    keeps_batch = bool(shape) and bool(value.shape) and shape[0] == value.shape[0]

    def reshape(x: Any) -> Any:
        # the batch is taken from the value, so that the import also serves a dynamic one
        return x.reshape(x.shape[0], *shape[1:]) if keeps_batch else x.reshape(shape)

    build.set(op.outputs[0], build.emit(op.layer, reshape, [build.plain(op.inputs[0])], shape=shape))


def _transpose(op: Operator, build: Builder) -> None:
    value, shape = build.value(op.inputs[0]), build.shape(op.outputs[0])
    order = tuple(int(axis) for axis in build.needed(op, 1, "permutation"))
    if value.is_image and order == TO_IMAGE:
        build.set(op.outputs[0], replace(value, shape=shape, layout="plain"))
    elif not value.is_image and order == TO_PLAIN:
        build.set(op.outputs[0], replace(value, shape=shape, layout="image"))
    else:
        made = build.emit(op.layer, lambda x: x.permute(order), [build.plain(op.inputs[0])], shape=shape)
        build.set(op.outputs[0], made)


def _pad(op: Operator, build: Builder) -> None:
    """PAD and PADV2."""
    from torch import nn

    amounts = build.needed(op, 1, "padding").astype(int).reshape(-1, 2)
    fill = float(np.reshape(build.needed(op, 2, "fill"), -1)[0]) if build.has(op, 2) else 0.0
    shape, value = build.shape(op.outputs[0]), build.value(op.inputs[0])
    if not amounts.any():
        build.set(op.outputs[0], value)
        return
    spatial = len(amounts) == 4 and not amounts[[0, 3]].any()
    if spatial:
        value = build.image(op.inputs[0])
    held = [amounts[axis] for axis in (TO_IMAGE if value.is_image else range(len(amounts)))]
    sides = tuple(int(amount) for pair in reversed(held) for amount in pair)
    if spatial:
        module: Any = nn.ZeroPad2d(sides[:4]) if fill == 0 else nn.ConstantPad2d(sides[:4], fill)
    else:

        def module(x: Any) -> Any:
            return nn.functional.pad(x, sides, value=fill)

    nonnegative = value.is_nonnegative and fill >= 0
    made = build.emit(op.layer, module, [value], shape=shape, layout=value.layout, is_nonnegative=nonnegative)
    build.set(op.outputs[0], made)


def _mirror_pad(op: Operator, build: Builder) -> None:
    import torch

    amounts = build.needed(op, 1, "padding").astype(int).reshape(-1, 2)
    value, shape = build.value(op.inputs[0]), build.shape(op.outputs[0])
    mode: Literal["symmetric", "reflect"] = "symmetric" if op.option("mode", 0) == 1 else "reflect"
    for axis, (before, after) in enumerate(amounts):
        if before == after == 0:
            continue
        places = torch.from_numpy(np.pad(np.arange(value.shape[axis]), (int(before), int(after)), mode))
        held = IMAGE_AXES[axis] if value.is_image else axis
        between = tuple(len(places) if place == axis else size for place, size in enumerate(value.shape))
        value = _selected(f"{op.layer}_{axis}", build, value, held, places, between)
    build.set(op.outputs[0], replace(value, shape=shape))


def _selected(name: str, build: Builder, value: Value, held: int, places: Any, shape: tuple[int, ...]) -> Value:
    chosen = Value(tensor=places, shape=tuple(places.shape))
    nonnegative, layout = value.is_nonnegative, value.layout
    made = build.emit(name, lambda x, at: x.index_select(held, at), [value, chosen], shape=shape, layout=layout)
    return replace(made, is_nonnegative=nonnegative)


def _concatenation(op: Operator, build: Builder) -> None:
    import torch

    shape = build.shape(op.outputs[0])
    values = together(op, build)
    axis = int(op.option("axis", 0)) % len(shape)
    held = IMAGE_AXES[axis] if values[0].is_image else axis
    made = build.emit(
        op.layer,
        lambda *parts: torch.cat(parts, held),
        values,
        shape=shape,
        layout=values[0].layout,
        is_nonnegative=all(value.is_nonnegative for value in values),
    )
    build.set(op.outputs[0], fused(op, build, made))


def _split(op: Operator, build: Builder) -> None:
    """SPLIT (axis first) and SPLIT_V (sizes, then axis)."""
    data, axis_place = (1, 0) if op.kind == "SPLIT" else (0, 2)
    value = build.value(op.inputs[data])
    axis = int(np.reshape(build.needed(op, axis_place, "axis"), -1)[0]) % len(value.shape)
    held = IMAGE_AXES[axis] if value.is_image else axis
    start = 0
    for place, index in enumerate(op.outputs):
        shape = build.shape(index)
        made = _narrowed(f"{op.layer}_{place}", build, value, {held: (start, shape[axis])}, shape)
        build.set(index, made)
        start += shape[axis]


def _narrowed(
    name: str, build: Builder, value: Value, parts: dict[int, tuple[int, int]], shape: tuple[int, ...]
) -> Value:
    """A part of `value`: (start, length) for held axes."""

    def cut(x: Any) -> Any:
        for held, (start, length) in parts.items():
            x = x.narrow(held, start, length)
        return x

    nonnegative = value.is_nonnegative
    return build.emit(name, cut, [value], shape=shape, layout=value.layout, is_nonnegative=nonnegative)


def _slice(op: Operator, build: Builder) -> None:
    begin = build.needed(op, 1, "beginning").astype(int).reshape(-1)
    value, shape = build.value(op.inputs[0]), build.shape(op.outputs[0])
    parts = {
        (IMAGE_AXES[axis] if value.is_image else axis): (int(start), size)
        for axis, (start, size) in enumerate(zip(begin, shape, strict=True))
        if size != value.shape[axis]
    }
    build.set(op.outputs[0], _narrowed(op.layer, build, value, parts, shape))


def _strided_slice(op: Operator, build: Builder) -> None:
    begin, end, strides = (
        build.needed(op, place, what).astype(int).reshape(-1)
        for place, what in ((1, "beginning"), (2, "end"), (3, "strides"))
    )
    if op.option("ellipsisMask", 0) or op.option("newAxisMask", 0):
        raise op.refuse("ellipsis and new axes are not imported")
    shrink = int(op.option("shrinkAxisMask", 0))
    value, shape = build.value(op.inputs[0]), build.shape(op.outputs[0])
    if shrink and value.is_image:
        value = build.plain(op.inputs[0])
    cuts: dict[int, tuple[int, int, int]] = {}
    dropped: list[int] = []
    for axis, (first, last, step) in enumerate(zip(begin, end, strides, strict=True)):
        size = value.shape[axis]
        if shrink >> axis & 1:
            cuts[axis] = (int(first) % size, int(first) % size + 1, 1)
            dropped.append(axis)
            continue
        wanted = slice(
            None if op.option("beginMask", 0) >> axis & 1 else int(first),
            None if op.option("endMask", 0) >> axis & 1 else int(first + last if op.option("offset", False) else last),
            int(step),
        )
        start, stop, stride = wanted.indices(size)
        if stride < 1:
            raise op.refuse(f"a stride of {stride} runs backwards, which is not imported")
        if (start, stop, stride) != (0, size, 1):
            cuts[IMAGE_AXES[axis] if value.is_image else axis] = (start, stop, stride)

    def cut(x: Any) -> Any:
        for held, (start, stop, stride) in cuts.items():
            x = x[(slice(None),) * held + (slice(start, stop, stride),)]
        for axis in reversed(dropped):
            x = x.squeeze(axis)
        return x

    nonnegative = value.is_nonnegative
    made = build.emit(op.layer, cut, [value], shape=shape, layout=value.layout, is_nonnegative=nonnegative)
    build.set(op.outputs[0], made)


def _pack(op: Operator, build: Builder) -> None:
    import torch

    shape = build.shape(op.outputs[0])
    axis = int(op.option("axis", 0)) % len(shape)
    parts = [build.plain(index) for index in op.inputs]
    build.set(op.outputs[0], build.emit(op.layer, lambda *each: torch.stack(each, axis), parts, shape=shape))


def _unpack(op: Operator, build: Builder) -> None:
    value = build.plain(op.inputs[0])
    axis = int(op.option("axis", 0)) % len(value.shape)
    for place, index in enumerate(op.outputs):
        made = build.emit(f"{op.layer}_{place}", _Select(axis, place), [value], shape=build.shape(index))
        build.set(index, made)


class _Select:
    """Takes one slice off an axis; a class, so that each slice of a loop keeps its own place."""

    def __init__(self, axis: int, place: int) -> None:
        self.axis = axis
        self.place = place

    def __call__(self, x: Any) -> Any:
        return x.select(self.axis, self.place)


def _shape(op: Operator, build: Builder) -> None:
    import torch

    sizes = build.value(op.inputs[0]).shape
    kind = getattr(torch, build.dtype(op.outputs[0]))
    build.set(op.outputs[0], Value(tensor=torch.tensor(sizes, dtype=kind), shape=(len(sizes),)))


def _cast(op: Operator, build: Builder) -> None:
    import torch

    kind = getattr(torch, build.dtype(op.outputs[0]), None)
    if kind is None:
        raise op.refuse(f"type {build.dtype(op.outputs[0])} is not imported")
    value = build.value(op.inputs[0])
    made = build.emit(op.layer, lambda x: x.to(kind), [value], shape=value.shape, layout=value.layout)
    build.set(op.outputs[0], made)


def _broadcast(op: Operator, build: Builder) -> None:
    """BROADCAST_TO and TILE, by the output's shape."""
    shape = build.shape(op.outputs[0])
    value = build.plain(op.inputs[0])
    if op.kind == "TILE":
        repeats = tuple(int(count) for count in build.needed(op, 1, "repetitions").reshape(-1))
        made = build.emit(op.layer, lambda x: x.repeat(repeats), [value], shape=shape)
    else:
        made = build.emit(op.layer, lambda x: x.expand(shape), [value], shape=shape)
    build.set(op.outputs[0], made)


def _fill(op: Operator, build: Builder) -> None:
    shape = build.shape(op.outputs[0])
    build.needed(op, 0, "shape")
    made = build.emit(op.layer, lambda x: x.expand(shape), [build.plain(op.inputs[1])], shape=shape)
    build.set(op.outputs[0], made)


def _blocks(op: Operator, build: Builder) -> None:
    """DEPTH_TO_SPACE and SPACE_TO_DEPTH: TFLite splits channels into pixels first, torch last."""
    size = int(op.option("blockSize", 1))
    image, shape = build.image(op.inputs[0]), build.shape(op.outputs[0])
    if op.kind == "DEPTH_TO_SPACE":
        _, height, width, channels = image.shape
        depth = channels // (size * size)

        def move(x: Any) -> Any:
            x = x.reshape(x.shape[0], size, size, depth, height, width).permute(0, 3, 4, 1, 5, 2)
            return x.reshape(x.shape[0], depth, height * size, width * size)
    else:
        _, height, width, channels = shape
        depth = channels // (size * size)

        def move(x: Any) -> Any:
            x = x.reshape(x.shape[0], depth, height, size, width, size).permute(0, 3, 5, 1, 2, 4)
            return x.reshape(x.shape[0], channels, height, width)

    build.set(op.outputs[0], build.emit(op.layer, move, [image], shape=shape, layout="image"))


def _dequantize(op: Operator, build: Builder) -> None:
    """DEQUANTIZE of float16, which stores weights at half the size; integers were refused while reading."""
    value = build.value(op.inputs[0])
    if build.dtype(op.inputs[0]) != "float16":
        raise op.refuse("only float16 weights are imported")
    made = build.emit(op.layer, lambda x: x.float(), [value], shape=value.shape, layout=value.layout)
    build.set(op.outputs[0], made)


def _same(op: Operator, build: Builder) -> None:
    build.set(op.outputs[0], build.value(op.inputs[0]))


OPERATORS = {
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "TRANSPOSE": _transpose,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _mirror_pad,
    "CONCATENATION": _concatenation,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "PACK": _pack,
    "UNPACK": _unpack,
    "SHAPE": _shape,
    "CAST": _cast,
    "TILE": _broadcast,
    "BROADCAST_TO": _broadcast,
    "FILL": _fill,
    "DEPTH_TO_SPACE": _blocks,
    "SPACE_TO_DEPTH": _blocks,
    "DEQUANTIZE": _dequantize,
    "IDENTITY": _same,
}
"""How each operator is built."""
