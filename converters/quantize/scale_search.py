"""Weight scales that minimise the squared rounding error: with sixteen values, clipping a few extremes pays."""

from __future__ import annotations

import numpy as np

from converters.quantize.uniform import along_axis, quantize_symmetric, symmetric_scales

__all__ = ["weight_scales"]

# Shares of the largest magnitude that are tried as the end of the range. Below one half clipping always costs more.
SHARES = np.linspace(1.0, 0.5, 26)


def weight_scales(
    weights: np.ndarray,
    *,
    axis: int | None,
    bits: int,
    floor: np.ndarray | float = 0.0,
    narrow: bool | None = None,
) -> np.ndarray:
    """One scale for each slice along `axis`: the extremes at 8 bits, the least squared error at 4.

    Args:
        floor: Smallest scale allowed, per slice.
        narrow: Leave out the most negative value; None for INT8 only.

    Returns:
        float32 array of one scale per slice.
    """
    widest = symmetric_scales(weights, axis=axis, bits=bits, floor=floor, narrow=narrow)
    if bits == 8:
        return widest
    axes = tuple(i for i in range(weights.ndim) if axis is None or i != axis % weights.ndim)
    best, least = widest, np.full(widest.shape, np.inf)
    for share in SHARES:
        scales = np.maximum(widest * share, floor).astype(np.float32)
        stored = quantize_symmetric(weights, scales, axis=axis, bits=bits, narrow=narrow)
        errors = stored * along_axis(scales, axis, weights.ndim).astype(np.float64) - weights
        squared = np.atleast_1d((errors**2).sum(axis=axes))
        best, least = np.where(squared < least, scales, best), np.minimum(squared, least)
    return best.astype(np.float32)
