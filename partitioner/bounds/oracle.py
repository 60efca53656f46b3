"""Bounds that know the future of the trace; each gives the cut to use from every tick on."""

from __future__ import annotations

import numpy as np

__all__ = ["best_per_moment", "hindsight_static", "paying_oracle"]


def hindsight_static(taken_s: np.ndarray) -> np.ndarray:
    """The one cut that was best on the whole trace.

    Args:
        taken_s: What a request takes with each cut, by tick; shape (ticks, C), see `partitioner.realised`.

    Returns:
        Index of the cut from each tick on; shape (ticks,).
    """
    return np.full(len(taken_s), int(taken_s.mean(axis=0).argmin()))


def best_per_moment(taken_s: np.ndarray) -> np.ndarray:
    """The best cut of every tick, as if switches were free."""
    return np.asarray(taken_s.argmin(axis=1))


def paying_oracle(taken_s: np.ndarray, price_s: np.ndarray, first: int | None = None) -> np.ndarray:
    """The best sequence of cuts when each switch has its price: dynamic programming over ticks x cuts.

    Args:
        price_s: What going over to each cut costs, in the unit of `taken_s`, e.g. seconds of a request times the
            requests of a tick; shape (C,).
        first: The cut in force before the first tick; None where the first one is free.

    Returns:
        Index of the cut from each tick on; shape (ticks,).
    """
    ticks, cuts = taken_s.shape
    stays = np.empty((ticks, cuts), dtype=bool)
    came_from = np.empty(ticks, dtype=np.int64)
    total = np.zeros(cuts)
    if first is not None:
        total = np.full(cuts, np.inf)
        total[first] = 0.0
    for tick in range(ticks):
        # A switch is best made from the cut with the least total, whatever the target.
        source = int(total.argmin())
        moved = total[source] + price_s
        stays[tick] = total <= moved
        came_from[tick] = source
        total = np.minimum(total, moved) + taken_s[tick]
    chosen = np.empty(ticks, dtype=np.int64)
    cut = int(total.argmin())
    for tick in range(ticks - 1, -1, -1):
        chosen[tick] = cut
        if not stays[tick, cut]:
            cut = int(came_from[tick])
    return chosen
