"""Rank correlation: whether one list orders things as another does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["rank_correlation"]


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rho, ties at their mean rank; None for fewer than three pairs, or where either is constant."""
    if len(one) < 3:
        return None
    first, second = (_ranks(np.asarray(values, np.float64)) for values in (one, other))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return ranks
