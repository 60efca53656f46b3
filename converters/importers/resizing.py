"""Resizing of images. Where torch counts pixels otherwise, the same is said by chosen pixels or by matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converters.importers.build import Builder, Value
from converters.importers.tflite_read import Operator

__all__ = ["OPERATORS"]


def _nearest(op: Operator, build: Builder) -> None:
    import torch
    from torch import nn

    image, shape = build.image(op.inputs[0]), build.shape(op.outputs[0])
    align, centers = bool(op.option("alignCorners", False)), bool(op.option("halfPixelCenters", False))
    whole = all(new % old == 0 for new, old in zip(shape[1:3], image.shape[1:3], strict=True))
    if whole and not align:
        # Enlarging by a whole number repeats pixels, wherever their centres are said to be.
        factors = tuple(float(new // old) for new, old in zip(shape[1:3], image.shape[1:3], strict=True))
        build.set(
            op.outputs[0],
            build.emit(op.layer, nn.Upsample(scale_factor=factors), [image], shape=shape, layout="image"),
        )
        return
    for axis, held in ((1, 2), (2, 3)):
        old, new = image.shape[axis], shape[axis]
        places = torch.from_numpy(_nearest_places(old, new, align, centers))
        between = tuple(new if place == axis else size for place, size in enumerate(image.shape))
        chosen = Value(tensor=places, shape=(new,))
        picked = build.emit(
            f"{op.layer}_{axis}",
            (lambda x, at: x.index_select(2, at)) if held == 2 else (lambda x, at: x.index_select(3, at)),
            [image, chosen],
            shape=between,
            layout="image",
        )
        image = replace(picked, is_nonnegative=image.is_nonnegative)
    build.set(op.outputs[0], image)


def _nearest_places(old: int, new: int, align: bool, centers: bool) -> np.ndarray:
    """The pixel that each new pixel repeats, in single precision as the kernels compute it."""
    at = np.arange(new, dtype=np.float32)
    scale = np.float32((old - 1) / (new - 1)) if align and new > 1 else np.float32(old / new)
    exact = (at + np.float32(0.5 if centers else 0)) * scale
    places = np.floor(exact + np.float32(0.5)) if align else np.floor(exact)
    clipped: np.ndarray = np.clip(places, 0, old - 1)
    return clipped.astype(np.int64)


def _bilinear(op: Operator, build: Builder) -> None:
    import torch
    from torch import nn

    image, shape = build.image(op.inputs[0]), build.shape(op.outputs[0])
    align, centers = bool(op.option("alignCorners", False)), bool(op.option("halfPixelCenters", False))
    if align or centers:
        module = nn.Upsample(size=shape[1:3], mode="bilinear", align_corners=align)
        made = build.emit(op.layer, module, [image], shape=shape, layout="image")
    else:
        rows = torch.from_numpy(_bilinear_weights(image.shape[1], shape[1]))
        columns = torch.from_numpy(_bilinear_weights(image.shape[2], shape[2]).T.copy())
        weights = [Value(tensor=matrix, shape=tuple(matrix.shape)) for matrix in (rows, columns)]
        made = build.emit(op.layer, lambda x, a, b: a @ x @ b, [image, *weights], shape=shape, layout="image")
    build.set(op.outputs[0], made)


def _bilinear_weights(old: int, new: int) -> np.ndarray:
    """[new, old]: how much each old pixel gives to each new one when pixels count from their corners."""
    at = np.arange(new, dtype=np.float32) * np.float32(old / new)
    below = np.minimum(np.floor(at).astype(int), old - 1)
    above = np.minimum(below + 1, old - 1)
    share = at - below
    weights = np.zeros((new, old), np.float32)
    np.add.at(weights, (np.arange(new), below), 1 - share)
    np.add.at(weights, (np.arange(new), above), share)
    return weights


OPERATORS = {"RESIZE_NEAREST_NEIGHBOR": _nearest, "RESIZE_BILINEAR": _bilinear}
"""How each operator is built."""
