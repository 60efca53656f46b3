"""Time as a value that is passed in: the system's clock, and one that tests turn by hand."""

from __future__ import annotations

import itertools
import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock", "resolution_s"]


class Clock(Protocol):
    """Something that says what time it is."""

    def now_s(self) -> float:
        """Seconds since a moment of the clock's own choice; never runs backwards."""


class SystemClock:
    """The finest monotonic clock of this machine."""

    def now_s(self) -> float:
        """Seconds of `time.perf_counter`."""
        return time.perf_counter()


class ManualClock:
    """Stands still until it is advanced.

    Args:
        tick_s: Advance by this much whenever the time is read, as if reading it took that long.
    """

    def __init__(self, *, start_s: float = 0.0, tick_s: float = 0.0) -> None:
        self._now_s = start_s
        self._tick_s = tick_s

    def now_s(self) -> float:
        """The time it was turned to."""
        self._now_s += self._tick_s
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        if seconds < 0:
            raise ValueError(f"a clock cannot run backwards ({seconds} s)")
        self._now_s += seconds


def resolution_s(clock: Clock, *, readings: int = 2000) -> float:
    """The smallest step between two readings that differ: below this a duration is noise; 0 for a clock that stands."""
    times = [clock.now_s() for _ in range(readings)]
    steps = [later - earlier for earlier, later in itertools.pairwise(times) if later > earlier]
    return min(steps, default=0.0)
