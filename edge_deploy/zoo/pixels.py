"""A description's preprocessing as an app needs it: what to subtract from a stored pixel, and what to divide by."""

from __future__ import annotations

from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.description import Preprocess

__all__ = ["pixel_mean_and_std"]


def pixel_mean_and_std(process: Preprocess, wanted: TensorInfo) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, such that the model takes (pixel - mean) / std.

    ((pixel - zero) * scale / divide - mean) / std is that with mean = zero + mean * divide / scale and
    std = std * divide / scale.

    Args:
        wanted: The model's input. One value stands for all channels where their number is not known.

    Returns:
        Both empty where the input is no image.
    """
    if len(wanted.shape) != 4 or process.flatten:
        return (), ()
    unit = process.divide / process.scale
    count = max(len(process.mean), len(process.std), 1)
    if count == 1 and wanted.layout is not None:
        count = max(wanted.shape[1 if wanted.layout == "NCHW" else 3], 1)
    mean, std = (_spread(values, count, default) for values, default in ((process.mean, 0.0), (process.std, 1.0)))
    return tuple(process.zero + value * unit for value in mean), tuple(value * unit for value in std)


def _spread(values: tuple[float, ...], count: int, default: float) -> tuple[float, ...]:
    values = values or (default,)
    return values * count if len(values) == 1 else values
