"""Round weights one column after another, so that later columns take back what earlier ones did to the outputs.

After Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022: with
the covariance of what a layer reads, the error that rounding one input's weights makes in the layer's output is partly
undone by the weights of correlated inputs, and pixels beside each other are strongly correlated. Two things differ from
the paper. The covariance is about the mean, because the bias takes the mean error back. And weights are rounded under
several scales, so that the one with the least error left can be chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.quantize.uniform import integer_limits

__all__ = ["MOST_COLUMNS", "SHARES", "round_best", "round_compensated"]

# Of the largest magnitude, tried as the end of a 4-bit range; at 8 bits clipping does not pay.
SHARES = {4: tuple(np.linspace(1.0, 0.5, 6).tolist()), 8: (1.0,)}
# Beyond this, columns are taken in parts that do not help each other: the work grows with the square.
MOST_COLUMNS = 1152
# Of the mean variance, added to every variance: what the samples did not show may still come.
DAMPING = 0.01
BLOCK = 32


def round_best(
    rows: np.ndarray,
    widest: np.ndarray,
    floor: np.ndarray | float,
    covariances: Sequence[np.ndarray],
    *,
    bits: int,
    is_uniform: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Round under the scales that leave the least error: of `SHARES` of the widest, for each row or for all alike.

    Args:
        rows: Float weights [groups, rows, columns]; the rows of a group read the same inputs.
        widest: Scales [groups * rows] under which nothing is clipped.
        floor: Smallest scale allowed, of each row or of all.
        covariances: See `round_compensated`.
        is_uniform: All rows take the same share.

    Returns:
        Scales [groups * rows] as float32, and stored weights [groups, rows, columns] as int8.
    """
    shares = np.array(SHARES[bits])[:, None]
    candidates = np.maximum(widest * shares, floor).astype(np.float32)
    stored, errors = round_compensated(rows, candidates.reshape(len(shares), len(rows), -1), covariances, bits=bits)
    if is_uniform:
        errors = np.broadcast_to(errors.sum(axis=(1, 2), keepdims=True), errors.shape)
    best = errors.argmin(axis=0)[None]
    chosen = np.take_along_axis(stored, best[..., None], axis=0)[0]
    return np.take_along_axis(candidates, best.reshape(1, -1), axis=0)[0], chosen


def round_compensated(
    rows: np.ndarray, candidates: np.ndarray, covariances: Sequence[np.ndarray], *, bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Stored integers under each candidate scale, and the error they make behind the layer.

    Args:
        rows: Float weights [groups, rows, columns]; the rows of a group read the same inputs.
        candidates: Scales [candidates, groups, rows] to choose from.
        covariances: Of the inputs, [groups, columns, columns] in the terms of `rows`; several cover the columns one
            after another, and inputs of different parts count as uncorrelated.

    Returns:
        Stored weights [candidates, groups, rows, columns] as int8 and the variance [candidates, groups, rows] of the
        error that each makes in its layer's output, damping included. No candidate is worse than plain rounding.
    """
    count, groups, outputs = candidates.shape
    scales = candidates.astype(np.float64).transpose(1, 0, 2).reshape(groups, count * outputs)
    stored, errors = [], np.zeros(scales.shape)
    start = 0
    for covariance in covariances:
        part = rows[:, :, start : start + covariance.shape[-1]].astype(np.float64)
        start += covariance.shape[-1]
        tiled = np.tile(part, (1, count, 1))
        damped = _damped(covariance)
        low, high = integer_limits(bits, narrow=bits == 8)
        plain = np.clip(np.rint(tiled / scales[:, :, None]), low, high)
        chosen, least = plain, _variances(plain * scales[:, :, None] - tiled, damped)
        moved = _one_after_another(tiled, scales, damped, low, high)
        variances = _variances(moved * scales[:, :, None] - tiled, damped)
        chosen = np.where((variances < least)[:, :, None], moved, chosen)
        stored.append(chosen.astype(np.int8))
        errors += np.minimum(variances, least)
    joined = np.concatenate(stored, axis=2).reshape(groups, count, outputs, -1).transpose(1, 0, 2, 3)
    return joined, errors.reshape(groups, count, outputs).transpose(1, 0, 2)


def _damped(covariance: np.ndarray) -> np.ndarray:
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    mean = variances.mean(axis=1)
    extra = np.where(mean > 0, DAMPING * mean, 1.0)
    damped: np.ndarray = covariance.astype(np.float64) + extra[:, None, None] * np.eye(covariance.shape[-1])
    return damped


def _variances(errors: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Of each row's outputs; the large product is one of float32 numbers around one, whatever the inputs' scale."""
    sizes = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    correlation = (covariance / sizes[:, :, None] / sizes[:, None, :]).astype(np.float32)
    sized = errors * sizes[:, None, :]
    largest = np.abs(sized).max(axis=2, keepdims=True)
    unit = np.where(largest > 0, largest, 1.0)
    relative = (sized / unit).astype(np.float32)
    found: np.ndarray = ((relative @ correlation) * relative).sum(axis=2, dtype=np.float64) * unit[:, :, 0] ** 2
    return found


def _one_after_another(
    weights: np.ndarray, scales: np.ndarray, covariance: np.ndarray, low: int, high: int
) -> np.ndarray:
    """Inputs of the largest variance first, whose errors the others then take back."""
    order = np.argsort(-np.diagonal(covariance, axis1=1, axis2=2), axis=1, kind="stable")
    ordered = np.take_along_axis(np.take_along_axis(covariance, order[:, :, None], 1), order[:, None, :], 2)
    # Rows of the upper Cholesky factor of the inverse say how much of an error each later column takes back.
    upper = np.linalg.cholesky(np.linalg.inv(ordered)).swapaxes(1, 2)
    upper = upper / np.diagonal(upper, axis1=1, axis2=2)[:, :, None]
    # In steps of the scale, [groups, columns, rows]: a column lies in one piece, and float32 resolves it well.
    steps = (weights / scales[:, :, None]).swapaxes(1, 2).astype(np.float32)
    left = np.take_along_axis(steps, order[:, :, None], axis=1)
    taken_back = np.ascontiguousarray(upper.swapaxes(1, 2), np.float32)
    stored = np.empty_like(left)
    columns = left.shape[1]
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        for column in range(start, end):
            stored[:, column] = np.clip(np.rint(left[:, column]), low, high)
            error = left[:, column] - stored[:, column]
            left[:, column] = error
            left[:, column + 1 : end] -= taken_back[:, column + 1 : end, column, None] * error[:, None, :]
        left[:, end:] -= taken_back[:, end:, start:end] @ left[:, start:end]
    return np.take_along_axis(stored, np.argsort(order, axis=1)[:, :, None], axis=1).swapaxes(1, 2)
