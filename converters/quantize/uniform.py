"""Uniform quantization in plain NumPy: scales and zero points, symmetric and asymmetric, per tensor and per channel.

real = scale * (stored - zero_point), after Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018, and the TFLite 8-bit quantization specification.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = [
    "INT8_MAX",
    "SMALLEST_SCALE",
    "Affine",
    "affine_from_range",
    "dequantize",
    "integer_limits",
    "quantize",
    "quantize_symmetric",
    "symmetric_scales",
]

INT8_MAX = 127
# Narrower activations are below anything a network computes with; with smaller scales the kernels' shifts leave their
# range, and HARD_SWISH ends the process.
SMALLEST_SCALE = 2.0**-30
# Of weights: products with input scales must stay normal float32 numbers.
SMALLEST_WEIGHT_SCALE = 2.0**-40


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """Scale and zero point of one whole tensor."""

    scale: float
    zero_point: int


def integer_limits(bits: int, *, narrow: bool = False) -> tuple[int, int]:
    """Smallest and largest stored value of a signed integer of `bits` bits.

    Args:
        narrow: Leave out the most negative value, so that the range is symmetric around zero.
    """
    top = 2 ** (bits - 1) - 1
    return (-top if narrow else -top - 1), top


def affine_from_range(low: float, high: float, *, bits: int = 8, smallest: float = SMALLEST_SCALE) -> Affine:
    """Scale and zero point that cover [low, high] and represent zero exactly.

    A range without extent (a tensor that is always zero) gets a harmless scale instead of a division by zero.

    Args:
        smallest: Narrower ranges are widened to this scale.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    bottom, top = integer_limits(bits)
    if high - low < SMALLEST_SCALE * (top - bottom):
        return Affine(scale=float(np.float32(1.0 / (top - bottom))), zero_point=0 if low < 0 < high else bottom)
    scale = max(float(np.float32((high - low) / (top - bottom))), smallest)
    zero_point = int(np.clip(np.rint(bottom - low / scale), bottom, top))
    return Affine(scale=scale, zero_point=zero_point)


def symmetric_scales(
    weights: np.ndarray,
    *,
    axis: int | None,
    bits: int,
    floor: np.ndarray | float = 0.0,
    narrow: bool | None = None,
) -> np.ndarray:
    """Scale for each slice along `axis` (one for the whole array when it is None), zero point 0.

    INT8 keeps to [-127, 127], which the TFLite specification demands of weights. INT4 uses [-8, 7]: of sixteen
    values none is wasted, the extreme of larger magnitude decides on which side the wider half lies, and nearly
    every kernel widens the nibble to INT8 before it multiplies, so -8 costs nothing.

    Args:
        floor: Smallest scale allowed, per slice; slices of zeros get at least the smallest scale of the others.
        narrow: Leave out the most negative value; None for INT8 only.

    Returns:
        float32 array of one scale per slice.
    """
    values = np.asarray(weights, np.float64)
    axes = None if axis is None else tuple(i for i in range(values.ndim) if i != axis % values.ndim)
    low = np.minimum(np.atleast_1d(values.min(axis=axes)), 0.0)
    high = np.maximum(np.atleast_1d(values.max(axis=axes)), 0.0)
    bottom, top = integer_limits(bits, narrow=bits == 8 if narrow is None else narrow)
    scales = np.maximum(high / top, low / bottom)
    used = scales[scales > 0]
    scales = np.where(scales > 0, scales, used.min() if used.size else 1.0 / top)
    return np.maximum(np.maximum(scales, floor), SMALLEST_WEIGHT_SCALE).astype(np.float32)


def quantize(
    values: np.ndarray, scale: np.ndarray | float, zero_point: np.ndarray | int, *, low: int, high: int
) -> np.ndarray:
    """Stored integers (as int64), rounded half to even and clipped to [low, high]; scales must broadcast."""
    stored = np.rint(np.asarray(values, np.float64) / np.asarray(scale, np.float64)) + zero_point
    clipped: np.ndarray = np.clip(stored, low, high).astype(np.int64)
    return clipped


def quantize_symmetric(
    weights: np.ndarray, scales: np.ndarray, *, axis: int | None, bits: int, narrow: bool | None = None
) -> np.ndarray:
    """Stored weights as int8, whatever their width; `scales` and `narrow` as for `symmetric_scales`."""
    low, high = integer_limits(bits, narrow=bits == 8 if narrow is None else narrow)
    return quantize(weights, along_axis(scales, axis, weights.ndim), 0, low=low, high=high).astype(np.int8)


def along_axis(scales: np.ndarray, axis: int | None, dimensions: int) -> np.ndarray:
    """`scales` in a shape that broadcasts along `axis` of an array with that many dimensions."""
    if axis is None:
        return np.asarray(scales).reshape((1,) * dimensions)
    return np.asarray(scales).reshape(tuple(-1 if i == axis % dimensions else 1 for i in range(dimensions)))


def dequantize(stored: np.ndarray, scale: np.ndarray | float, zero_point: np.ndarray | int = 0) -> np.ndarray:
    """Real values as float32."""
    real: np.ndarray = (np.asarray(scale, np.float64) * (stored.astype(np.float64) - zero_point)).astype(np.float32)
    return real
