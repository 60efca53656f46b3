"""What happened to one request, as the edge saw it: written by the request itself, read by everybody else."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BY_CLOUD", "FELL_BACK", "HOW", "LOST", "ON_EDGE", "Happened"]

# The simulator's numbers.
ON_EDGE, BY_CLOUD, FELL_BACK, LOST = 1, 2, 3, 4
HOW = {ON_EDGE: "edge", BY_CLOUD: "cloud", FELL_BACK: "fallback", LOST: "lost"}


class Happened(NamedTuple):
    """One request; moments in seconds of the session's clock. A tuple, because making one must cost next to nothing.

    Attributes:
        cut: Index of the cut in force.
        how: See `HOW`; a lost one ended with an error: cancelled, too late, or no fallback.
        arrived_s: When `infer` was called.
        begun_s: When the edge took it up; `headed_s`: when the head was done; `encoded_s`: when it was sent.
        answered_s: When the cloud's answer was there, or was given up; 0 where it was not asked.
        done_s: When the caller got its answer.
        number: Of the request, from 1 on in the order of the calls of `infer`; it is part of its id on the wire.
        queue_s: That it waited in the cloud, and `cloud_s`: was computed there, as the cloud says; -1 if it does not.
        up_bytes, down_bytes: On the wire.
        attempts: Calls of the cloud.
        reason: Why it fell back or was lost.
    """

    cut: int
    how: int
    arrived_s: float
    begun_s: float
    headed_s: float
    done_s: float
    number: int = 0
    encoded_s: float = 0.0
    answered_s: float = 0.0
    queue_s: float = -1.0
    cloud_s: float = -1.0
    up_bytes: int = 0
    down_bytes: int = 0
    attempts: int = 0
    reason: str = ""

    @property
    def asked_cloud(self) -> bool:
        """Whether it waited for the cloud at all; not while the breaker was open."""
        return self.answered_s > 0

    @property
    def latency_s(self) -> float:
        """From call to answer."""
        return self.done_s - self.arrived_s
