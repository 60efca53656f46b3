"""Least squares with coefficients that are not negative: more work never takes less time."""

from __future__ import annotations

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["nonnegative_least_squares"]

MOST_STEPS = 10_000
TOLERANCE = 1e-10


def nonnegative_least_squares(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The x >= 0 that minimises |rows x - values|, by coordinate descent on the normal equations.

    The problem is convex and has few columns, so that descent along one coordinate after the other gets there; columns
    are scaled to the same length first.

    Args:
        rows: Shape (n, k).
        values: Shape (n,).

    Raises:
        BadInput: Shapes do not fit, or something is not finite.
    """
    if rows.ndim != 2 or values.shape != (len(rows),):
        raise BadInput(f"least squares: {rows.shape} rows and {values.shape} values do not fit.")
    if not np.isfinite(rows).all() or not np.isfinite(values).all():
        raise BadInput("least squares: rows and values must be finite.")
    lengths = np.linalg.norm(rows, axis=0)
    scale = np.where(lengths > 0, lengths, 1.0)
    scaled = rows / scale
    gram, target = scaled.T @ scaled, scaled.T @ values
    found = np.zeros(rows.shape[1])
    limit = TOLERANCE * max(float(np.abs(target).max(initial=0.0)), 1e-300)
    used = np.flatnonzero(lengths)
    for _ in range(MOST_STEPS):
        largest = 0.0
        for column in used:
            wanted = max(0.0, found[column] + float(target[column] - gram[column] @ found) / gram[column, column])
            largest = max(largest, abs(wanted - found[column]))
            found[column] = wanted
        if largest <= limit:
            break
    return np.asarray(found / scale)
