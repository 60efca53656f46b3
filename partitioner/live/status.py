"""What a live session is doing: counters and the newest latencies, for people and pages that look at it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_deploy.core.conditions import Conditions
from partitioner.live.happened import HOW, ON_EDGE, Happened

__all__ = ["Counters", "Status"]

NEWEST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A look at a session.

    Attributes:
        seconds: Since it began.
        cut: In force; `warm`: the cuts whose halves are loaded.
        answered: Requests by how they ended: edge, cloud, fallback, lost.
        by_cut: Requests by the cut that was in force.
        p50_s, p95_s, p99_s: Latencies of the newest thousand; 0 before the first request.
        cloud: "reachable", or why it is not.
        switches: How often the cut changed.
        cpu_pressure, memory_pressure: Share of the last ten seconds in which something waited for it; None where the
            system does not tell.
        last_reason: Why the newest request fell back or was lost; empty where none did.
    """

    seconds: float
    cut: str
    warm: tuple[str, ...]
    policy: str
    why: str
    conditions: Conditions | None
    cloud: str
    answered: dict[str, int]
    by_cut: dict[str, int]
    p50_s: float
    p95_s: float
    p99_s: float
    up_bytes: int
    down_bytes: int
    attempts: int
    switches: int
    last_reason: str
    newest: tuple[tuple[float, float], ...] = field(default=())
    cpu_pressure: float | None = None
    memory_pressure: float | None = None


class Counters:
    """Adds up what happened; used by one thread, read by any."""

    def __init__(self, cuts: Sequence[str]) -> None:
        self.answered = dict.fromkeys(HOW.values(), 0)
        self.by_cut = dict.fromkeys(cuts, 0)
        self.up_bytes = self.down_bytes = self.attempts = self.switches = 0
        self.last_reason = ""
        self._cuts = tuple(cuts)
        self._newest: deque[tuple[float, float]] = deque(maxlen=NEWEST)

    def add(self, one: Happened) -> None:
        """One request."""
        self.answered[HOW[one.how]] += 1
        self.by_cut[self._cuts[one.cut]] += 1
        self.up_bytes += one.up_bytes
        self.down_bytes += one.down_bytes
        self.attempts += one.attempts
        if one.how != ON_EDGE:  # there it names an early exit
            self.last_reason = one.reason or self.last_reason
        self._newest.append((one.done_s, one.latency_s))

    def percentiles(self) -> tuple[float, float, float]:
        """Median, 95th and 99th percentile of the newest latencies; zeros before the first."""
        latencies = [seconds for _, seconds in self._newest.copy()]
        if not latencies:
            return 0.0, 0.0, 0.0
        found = np.percentile(latencies, (50, 95, 99))
        return float(found[0]), float(found[1]), float(found[2])

    def newest(self, count: int) -> tuple[tuple[float, float], ...]:
        """Moment and latency of the last requests."""
        return tuple(self._newest.copy())[-count:]
