"""The covariance that few samples suggest, drawn towards one without correlations as far as they are too few."""

from __future__ import annotations

import numpy as np

__all__ = ["shrunk"]


def shrunk(covariance: np.ndarray, count: int) -> np.ndarray:
    """Oracle approximating shrinkage: Chen et al., "Shrinkage Algorithms for MMSE Covariance Estimation", 2010, eq. 23.

    Args:
        covariance: Of each group, [groups, columns, columns], as `count` samples have it.
        count: At least 1; samples of one image count as independent.
    """
    columns = covariance.shape[-1]
    trace = np.trace(covariance, axis1=1, axis2=2)
    square = np.square(covariance).sum(axis=(1, 2))
    above = (1 - 2 / columns) * square + trace**2
    below = (count + 1 - 2 / columns) * (square - trace**2 / columns)
    share = np.ones(len(covariance))
    share = np.clip(np.divide(above, below, out=share, where=below > above), 0, 1)[:, None, None]
    plain = (trace / columns)[:, None, None] * np.eye(columns)
    drawn: np.ndarray = (1 - share) * covariance + share * plain
    return drawn
