"""A device that is idle or busy in bursts: on and off times are exponential, the height of a burst is uniform."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["FIELDS", "on_off", "series"]

FIELDS = ("edge_load", "edge_memory", "cloud_load", "cloud_memory")


def series(
    time_s: np.ndarray,
    rng: np.random.Generator,
    values: Mapping[str, np.ndarray],
    *,
    idle_s: float = 40.0,
    busy_s: float = 15.0,
    low: float = 0.05,
    least: float = 0.5,
    most: float = 1.0,
) -> dict[str, np.ndarray]:
    """Shares between 0 and 1; each field has bursts of its own.

    Args:
        low: Between bursts; least, most: during a burst.
    """
    made = {}
    for field in FIELDS:
        numbers = on_off(time_s, rng, off_s=idle_s, on_s=busy_s)
        heights = rng.uniform(least, most, int(numbers.max()) + 1)
        made[field] = np.clip(np.where(numbers > 0, heights[numbers], low), 0.0, 1.0)
    return made


def on_off(time_s: np.ndarray, rng: np.random.Generator, *, off_s: float, on_s: float) -> np.ndarray:
    """The number of the burst (from 1) that each time falls into; 0 between bursts."""
    changes: list[float] = []
    now = 0.0
    while now <= time_s[-1]:
        now += rng.exponential(off_s)
        changes.append(now)
        now += rng.exponential(on_s)
        changes.append(now)
    passed = np.searchsorted(np.array(changes), time_s, side="right")
    return np.where(passed % 2 == 1, (passed + 1) // 2, 0)
