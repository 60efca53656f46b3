"""The non-decreasing sequence that is nearest to noisy measurements of one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["isotonic_means"]


def isotonic_means(values: Sequence[float] | np.ndarray, weights: Sequence[float] | None = None) -> np.ndarray:
    """Least-squares fit that never falls: neighbours in the wrong order are replaced by their weighted mean.

    Pool-adjacent-violators (Barlow, Bartholomew, Bremner and Brunk, Statistical Inference under Order Restrictions,
    1972).

    Args:
        values: In the order in which they should not fall; shape (n,).
        weights: How much each counts; None for equally.
    """
    amounts = [1.0] * len(values) if weights is None else [float(weight) for weight in weights]
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    for value, weight in zip(values, amounts, strict=True):
        mean, total, count = float(value), weight, 1
        while blocks and blocks[-1][0] > mean:
            before, theirs, members = blocks.pop()
            mean = (before * theirs + mean * total) / (theirs + total)
            total, count = total + theirs, count + members
        blocks.append((mean, total, count))
    return np.array([mean for mean, _, count in blocks for _ in range(count)])
