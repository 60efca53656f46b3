"""A load that follows the day: a sine of 24 hours with slow noise (an Ornstein-Uhlenbeck process) on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["FIELDS", "series"]

FIELDS = ("edge_load", "edge_memory", "cloud_load", "cloud_memory")


def series(
    time_s: np.ndarray,
    rng: np.random.Generator,
    values: Mapping[str, np.ndarray],
    *,
    mean: float = 0.4,
    swing: float = 0.25,
    period_s: float = 86400.0,
    noise: float = 0.08,
    memory_s: float = 60.0,
) -> dict[str, np.ndarray]:
    """Shares between 0 and 1; each field has its own noise, and cloud and edge peak at different hours.

    Args:
        noise: Standard deviation of the noise; memory_s: seconds over which it forgets.
    """
    steps = np.diff(time_s, prepend=time_s[0])
    keep = np.exp(-steps / memory_s)
    made = {}
    for field in FIELDS:
        phase = rng.uniform(0, 2 * np.pi)
        shocks = rng.standard_normal(len(time_s)) * noise
        wander = np.empty(len(time_s))
        now = shocks[0]
        for entry, share in enumerate(keep):
            now = share * now + np.sqrt(1 - share * share) * shocks[entry]
            wander[entry] = now
        made[field] = np.clip(mean + swing * np.sin(2 * np.pi * time_s / period_s + phase) + wander, 0.0, 1.0)
    return made
