"""The range of each row of an embedding table: its extremes, or the one of least squared error, all rows at once.

After Guan et al., "Post-Training 4-bit Quantization on Embedding Tables" (arXiv:1911.02079), whose greedy search
stands in ATen as `choose_qparams_optimized`. `greedy_affine` is that search; `greedy_scales` is the same walk for
formats whose rows have a scale and no zero point, where both ends move together.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from converters.quantize.uniform import integer_limits

__all__ = [
    "ScaleType",
    "greedy_affine",
    "greedy_scales",
    "rounded_up",
    "row_errors",
    "stochastic_codes",
    "widest_scales",
]

BINS = 200
RATIO = 0.16
SHRINK_TO = 0.5  # of the widest scale; sixteen values seldom pay for more clipping
SMALLEST_HALF = 2.0**-24
SMALLEST_FLOAT = 2.0**-120
ROWS_AT_ONCE = 1 << 13  # a few arrays of that many rows stay in the cache
ScaleType: TypeAlias = type[np.float16] | type[np.float32]


def widest_scales(rows: np.ndarray, *, bits: int, dtype: ScaleType) -> np.ndarray:
    """The scale of each row [rows, dim] that clips nothing by more than half a step; rows of zeros get the smallest.

    INT4 uses [-8, 7], so that the side with the larger magnitude decides; INT8 keeps to [-127, 127].
    """
    bottom, top = integer_limits(bits, narrow=bits == 8)
    columns = np.ascontiguousarray(rows.T)  # ten times faster than reducing the short axis in place
    high, low = columns.max(0, initial=0.0), columns.min(0, initial=0.0)
    wanted = np.maximum(high / np.float32(top), low / np.float32(bottom))
    return rounded_up(wanted, dtype)


def rounded_up(wanted: np.ndarray, dtype: ScaleType) -> np.ndarray:
    """Scales in the type that is stored, never smaller than wanted or than the smallest of the type."""
    smallest = SMALLEST_HALF if dtype is np.float16 else SMALLEST_FLOAT
    scales: np.ndarray = np.maximum(wanted, smallest).astype(dtype)
    short = scales.astype(np.float64) < wanted
    scales[short] = np.nextafter(scales[short], dtype(np.inf))
    return scales


def greedy_scales(rows: np.ndarray, *, bits: int, dtype: ScaleType, bins: int = BINS) -> np.ndarray:
    """The scale of each row with the least squared error, from the widest down to half of it.

    Candidates, `bins` to the widest, are rounded to the stored type before they are judged, and the widest is one of
    them, so that no row is ever worse than with its extremes.

    Args:
        rows: float32 [rows, dim].
        dtype: What a scale is stored as.
    """
    found = np.empty(len(rows), dtype)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = np.asarray(rows[start : start + ROWS_AT_ONCE], np.float32)
        found[start : start + len(part)] = _best_scales(part, bits, dtype, bins)
    return found


def _best_scales(rows: np.ndarray, bits: int, dtype: ScaleType, bins: int) -> np.ndarray:
    widest = widest_scales(rows, bits=bits, dtype=dtype)
    best, least = widest, row_errors(rows, widest, bits=bits)
    for step in range(1, int(bins * (1 - SHRINK_TO)) + 1):
        scales = rounded_up(widest.astype(np.float64) * (1 - step / bins), dtype)
        errors = row_errors(rows, scales, bits=bits)
        better = errors < least
        best, least = np.where(better, scales, best), np.where(better, errors, least)
    return best


def row_errors(rows: np.ndarray, scales: np.ndarray, *, bits: int) -> np.ndarray:
    """Squared error of each row, rounded to the nearest with these scales (one a row, or one for all)."""
    bottom, top = integer_limits(bits, narrow=bits == 8)
    wide = scales.astype(np.float32).reshape(-1, 1)
    values = rows / wide
    np.rint(values, out=values)
    np.clip(values, bottom, top, out=values)
    values *= wide
    values -= rows
    errors: np.ndarray = np.einsum("ij,ij->i", values, values)
    return errors


def stochastic_codes(rows: np.ndarray, scales: np.ndarray, *, bits: int, seed: int, start: int = 0) -> np.ndarray:
    """Stored integers floor(w / scale + u) with u uniform in [0, 1): right on average, at most one step off.

    Args:
        scales: One a row, or one for all.
        start: Number of the first row; the same seed and row give the same codes wherever a chunk begins.
    """
    bottom, top = integer_limits(bits, narrow=bits == 8)
    dim = rows.shape[1]
    # Philox counts in blocks of four numbers; a row begins at a block of its own.
    blocks = -(-dim // 4)
    source = np.random.Philox(key=seed)
    source.advance(start * blocks)
    noise = np.random.Generator(source).random((len(rows), blocks * 4))[:, :dim]
    exact = rows.astype(np.float64) / scales.astype(np.float64).reshape(-1, 1)
    codes: np.ndarray = np.clip(np.floor(exact + noise), bottom, top).astype(np.int8)
    return codes


def greedy_affine(
    rows: np.ndarray, *, bits: int, bins: int = BINS, ratio: float = RATIO
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of the range of each row, for rows with a scale and a bias.

    From the extremes, the end whose move by one of `bins` steps costs less is moved, until `ratio` of the range is
    gone; the best of all points that are better than both of their neighbours wins.

    Returns:
        float32 arrays (low, high); scale = (high - low) / (2^bits - 1), bias = low.
    """
    rows = np.asarray(rows, np.float32)
    low, high = rows.min(1), rows.max(1)
    step = ((high - low) / np.float32(bins)).astype(np.float32)
    least = _affine_errors(rows, low, high, bits)
    now, at_low, at_high = least.copy(), low.copy(), high.copy()
    end = step * np.float32(int(bins * (1.0 - np.float32(ratio))))
    while True:
        going = at_low + end < at_high
        if not going.any():
            return low, high
        up = _affine_errors(rows, at_low + step, at_high, bits)
        down = _affine_errors(rows, at_low, at_high - step, bits)
        optimum = going & (now < up) & (now < down) & (now < least)
        least = np.where(optimum, now, least)
        low, high = np.where(optimum, at_low, low), np.where(optimum, at_high, high)
        raises = going & (up < down)
        lowers = going & ~(up < down)
        at_low = np.where(raises, at_low + step, at_low)
        at_high = np.where(lowers, at_high - step, at_high)
        now = np.where(raises, up, np.where(lowers, down, now))


def _affine_errors(rows: np.ndarray, low: np.ndarray, high: np.ndarray, bits: int) -> np.ndarray:
    top = np.float32(2**bits - 1)
    bias = low.astype(np.float16).astype(np.float32)
    scale = ((high - bias) / top).astype(np.float16).astype(np.float32)
    scale = np.where(high - bias == 0, np.float32(1), scale)
    inverse = np.where(scale == 0, np.float32(1), np.float32(1) / np.where(scale == 0, np.float32(1), scale))
    codes = np.clip(np.rint((rows - bias[:, None]) * inverse[:, None]), 0, top)
    errors = codes * scale[:, None] + bias[:, None] - rows
    squared: np.ndarray = (errors.astype(np.float32) ** 2).sum(1)
    return squared
