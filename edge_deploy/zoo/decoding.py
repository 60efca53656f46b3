"""From an item's bytes to the array that the model takes: decode, resize, crop, normalise, bring into its layout."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.description import Description, Preprocess

__all__ = ["decode"]


def decode(content: bytes, description: Description, wanted: TensorInfo, *, where: str) -> np.ndarray:
    """One sample, without the batch dimension, in the model's type.

    Args:
        wanted: The model's input; its layout is taken from its shape where it does not say one.
        where: Names the item in messages.

    Raises:
        BadInput: The item is damaged, or does not have the model's shape after preprocessing.
    """
    process = description.preprocess
    if description.items.decode == "image":
        values = _image(content, process, wanted, where)
    elif description.items.decode == "npy":
        values = _npy(content, where)
    else:
        values = _raw(content, description, where)
    values = _cropped(values, process, where)
    values = _normalised(values, process, where)
    return _typed(_arranged(values, process, wanted, where), wanted, where)


def _image(content: bytes, process: Preprocess, wanted: TensorInfo, where: str) -> np.ndarray:
    pillow = require("PIL.Image", extra="datasets")
    try:
        with pillow.open(io.BytesIO(content)) as picture:
            converted = picture.convert(process.mode or _mode(wanted))
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{where}: is no readable image ({error}).") from error
    if process.resize is not None:
        converted = _resized(converted, process, getattr(pillow.Resampling, process.filter.upper()))
    pixels = np.asarray(converted)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _mode(wanted: TensorInfo) -> str:
    sizes = wanted.shape[1:]
    channels = sizes[0] if _is_channels_first(wanted, None) else sizes[-1] if sizes else 3
    return "L" if len(sizes) == 3 and channels == 1 else "RGB"


def _resized(picture: Any, process: Preprocess, resampling: Any) -> Any:
    if isinstance(process.resize, tuple):
        height, width = process.resize
    else:
        assert process.resize is not None
        share = process.resize / min(picture.width, picture.height)
        width, height = round(picture.width * share), round(picture.height * share)
    return picture if (width, height) == picture.size else picture.resize((width, height), resampling)


def _npy(content: bytes, where: str) -> np.ndarray:
    try:
        values: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(f"{where}: is no readable .npy file ({error}).") from error
    return values


def _raw(content: bytes, description: Description, where: str) -> np.ndarray:
    items = description.items
    kind = np.dtype(items.dtype)
    needed = int(np.prod(items.shape)) * kind.itemsize
    if len(content) != needed:
        raise BadInput(f"{where}: {len(content)} bytes: {items.dtype} {list(items.shape)} has {needed}.")
    return np.frombuffer(content, kind).reshape(items.shape)


def _cropped(values: np.ndarray, process: Preprocess, where: str) -> np.ndarray:
    if process.crop is None:
        return values
    height, width = process.crop if isinstance(process.crop, tuple) else (process.crop, process.crop)
    if values.ndim < 2 or values.shape[0] < height or values.shape[1] < width:
        raise BadInput(f"{where}: {values.shape[:2]} pixels: too small for preprocess.crop = {height} x {width}.")
    top, left = (values.shape[0] - height) // 2, (values.shape[1] - width) // 2
    return values[top : top + height, left : left + width]


def _normalised(values: np.ndarray, process: Preprocess, where: str) -> np.ndarray:
    if process == Preprocess(
        resize=process.resize, filter=process.filter, crop=process.crop, mode=process.mode, flatten=process.flatten
    ):
        return values
    for name, each in (("mean", process.mean), ("std", process.std)):
        if len(each) > 1 and (not values.ndim or values.shape[-1] != len(each)):
            raise BadInput(f"{where}: preprocess.{name} has {len(each)} values for an item of shape {values.shape}.")
    exact = (values.astype(np.float64) - process.zero) * process.scale / process.divide
    exact = exact - np.asarray(process.mean or 0.0)
    result: np.ndarray = (exact / np.asarray(process.std or 1.0)).astype(np.float32)
    return result


def _arranged(values: np.ndarray, process: Preprocess, wanted: TensorInfo, where: str) -> np.ndarray:
    shape = wanted.shape[1:]
    if process.flatten:
        values = values.reshape(-1)
    if len(shape) == 3 and values.ndim == 2:
        values = values[:, :, None]
    if len(shape) == 3 and values.ndim == 3 and _is_channels_first(wanted, values.shape):
        values = values.transpose(2, 0, 1)
    if values.ndim != len(shape) or any(size not in (-1, have) for size, have in zip(shape, values.shape, strict=True)):
        raise BadInput(
            f"{where}: shape {values.shape} after preprocessing: the model's input {wanted.name} takes {shape}; "
            "see resize, crop and flatten under [preprocess]."
        )
    return np.ascontiguousarray(values)


def _is_channels_first(wanted: TensorInfo, have: tuple[int, ...] | None) -> bool:
    """By the layout that the input states, else by its shape: channels are few, or stand where the item's do."""
    if wanted.layout is not None or len(wanted.shape) != 4:
        return wanted.layout == "NCHW"
    shape = wanted.shape[1:]
    if have is not None:
        return shape != have and shape == (have[2], have[0], have[1])
    return shape[0] in (1, 3) and shape[2] not in (1, 3)


def _typed(values: np.ndarray, wanted: TensorInfo, where: str) -> np.ndarray:
    kind = np.dtype(wanted.dtype)
    if kind.kind not in "iu":
        real: np.ndarray = values.astype(kind)
        return real
    rounded: np.ndarray = np.rint(values)
    limits = np.iinfo(kind)
    if values.size and (rounded.min() < limits.min or rounded.max() > limits.max):
        raise BadInput(f"{where}: values from {rounded.min():g} to {rounded.max():g} do not fit {wanted.dtype}.")
    return rounded.astype(kind)
