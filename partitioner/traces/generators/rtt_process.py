"""Round-trip times: log-normal with memory (a mean-reverting walk of the logarithm), and longer on a slow link."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["FIELDS", "series"]

FIELDS = ("rtt_s",)


def series(
    time_s: np.ndarray,
    rng: np.random.Generator,
    values: Mapping[str, np.ndarray],
    *,
    median_ms: float = 45.0,
    floor_ms: float = 5.0,
    spread: float = 0.4,
    memory_s: float = 10.0,
    queue_kbit: float = 40.0,
) -> dict[str, np.ndarray]:
    """Seconds at each time.

    Args:
        spread: Standard deviation of the logarithm; memory_s: seconds over which it forgets.
        queue_kbit: Bits of others that wait at the bottleneck, so that a slow link answers late; at most one second.
    """
    steps = np.diff(time_s, prepend=time_s[0])
    keep = np.exp(-steps / memory_s)
    shocks = rng.standard_normal(len(time_s))
    walk = np.empty(len(time_s))
    now = shocks[0]
    for entry, share in enumerate(keep):
        now = share * now + np.sqrt(1 - share * share) * shocks[entry]
        walk[entry] = now
    rtt = floor_ms / 1000 + max(median_ms - floor_ms, 0.0) / 1000 * np.exp(spread * walk)
    if "uplink_bps" in values:
        rtt = rtt + np.minimum(queue_kbit * 1000 / np.maximum(values["uplink_bps"], 1.0), 1.0)
    return {"rtt_s": rtt}
