"""A link whose rate walks between levels: a birth-death Markov chain with log-normal scatter within a level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["FIELDS", "series"]

FIELDS = ("uplink_bps", "downlink_bps")


def series(
    time_s: np.ndarray,
    rng: np.random.Generator,
    values: Mapping[str, np.ndarray],
    *,
    low_mbit_s: float = 0.5,
    high_mbit_s: float = 40.0,
    levels: float = 7,
    dwell_s: float = 8.0,
    scatter: float = 0.15,
    downlink_factor: float = 2.0,
) -> dict[str, np.ndarray]:
    """Rates at each time.

    Args:
        levels: How many, from low to high, equally far apart in the logarithm.
        dwell_s: Mean time in a level; the next one is the neighbour above or below.
        scatter: Standard deviation of the logarithm within a level.
        downlink_factor: Downlink over uplink.
    """
    count = max(2, round(levels))
    rates = np.geomspace(low_mbit_s, high_mbit_s, count) * 1e6
    steps = np.diff(time_s, prepend=time_s[0])
    moves = rng.random(len(time_s)) < -np.expm1(-steps / dwell_s)
    directions = np.where(rng.random(len(time_s)) < 0.5, -1, 1)
    state = int(rng.integers(count))
    path = np.empty(len(time_s), dtype=np.int64)
    for entry, (move, direction) in enumerate(zip(moves, directions, strict=True)):
        if move:
            # At either end the only neighbour is taken.
            state += direction if 0 <= state + direction < count else -direction
        path[entry] = state
    uplink = rates[path] * np.exp(scatter * rng.standard_normal(len(time_s)) - scatter**2 / 2)
    return {"uplink_bps": uplink, "downlink_bps": uplink * downlink_factor}
