"""One direction of a shaped link: when each chunk of bytes leaves and arrives. The time is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.link import RateCurve
from runtimes.shaping.link import ShapedLink

__all__ = ["Lane", "Passage"]

PACKET_BYTES = 1448
# One chunk takes about so long, that connections share a slow link fairly and a fast one costs few wake-ups.
CHUNK_S = 0.005
LEAST_CHUNK, MOST_CHUNK = 512, 65536


@dataclass(slots=True)
class Passage:
    """A chunk on its way: `bits` is the place of its last bit in the direction's stream; times in seconds.

    Bytes of one connection are delivered in order, whatever their own arrival: that is up to who writes them.
    """

    bits: float
    departs_s: float
    arrives_s: float
    extra_s: float


class Lane:
    """A token bucket with a delay line behind it, shared by all connections in the order in which they ask.

    Tokens are counted as bits of a stream that flows at the link's rate: a chunk takes the next free place in it, and
    leaves when the stream has come that far. So a change of the rate moves what still waits, and nothing else.

    Args:
        link: What to follow.
        direction: "up" or "down".
        now_s: Time at which the link's first entry begins.
    """

    def __init__(self, link: ShapedLink, direction: str, *, now_s: float) -> None:
        self._direction = direction
        self._random = np.random.default_rng([link.seed, direction == "up"])
        self._flowed_before = 0.0
        self._taken = -math.inf  # the bucket is full at the beginning
        self._waiting: dict[int, Passage] = {}
        self._set(link, now_s)

    def follow(self, link: ShapedLink, *, now_s: float) -> None:
        """Follow another link from now on; what has not left yet leaves at its rate."""
        self._flowed_before = self._flowed(now_s)
        self._set(link, now_s)
        for passage in self._waiting.values():
            if passage.departs_s > now_s:
                self._place(passage, now_s)

    def admit(self, n_bytes: int, *, now_s: float) -> Passage:
        """Take the next place for `n_bytes`; hand the passage back with `arrived` when it was delivered."""
        free = self._flowed(now_s) - 8 * self._link.burst_bytes
        self._taken = max(self._taken, free) + 8 * n_bytes
        passage = Passage(self._taken, 0.0, 0.0, self._extra(n_bytes, now_s))
        self._place(passage, now_s)
        self._waiting[id(passage)] = passage
        return passage

    def arrived(self, passage: Passage) -> None:
        """Forget a passage."""
        self._waiting.pop(id(passage), None)

    def backlog_bytes(self, now_s: float) -> float:
        """Bytes that were admitted and have not left."""
        return max(0.0, self._taken - self._flowed(now_s)) / 8

    def has_room_s(self, most_bytes: float) -> float:
        """When the backlog falls to `most_bytes`; infinite in an outage without end."""
        return self._time_of(self._taken - 8 * most_bytes)

    def chunk_bytes(self, now_s: float) -> int:
        """How much to read at once."""
        rate = float(self._curve.rate(now_s - self._begin_s))
        return int(min(max(rate * CHUNK_S / 8, LEAST_CHUNK), MOST_CHUNK))

    def _set(self, link: ShapedLink, now_s: float) -> None:
        self._link, self._begin_s = link, now_s
        rates = link.uplink_bps if self._direction == "up" else link.downlink_bps
        self._curve = RateCurve(np.array(link.time_s), np.array(rates))

    def _flowed(self, now_s: float) -> float:
        """Bits of the stream that have passed by now."""
        return self._flowed_before + float(self._curve.carried(now_s - self._begin_s))

    def _time_of(self, bits: float) -> float:
        return self._begin_s + float(self._curve.reaches(bits - self._flowed_before))

    def _place(self, passage: Passage, now_s: float) -> None:
        passage.departs_s = max(now_s, self._time_of(passage.bits))
        if math.isinf(passage.departs_s):
            passage.arrives_s = math.inf
            return
        delay = self._link.delay_s[self._link.entry(passage.departs_s - self._begin_s)]
        passage.arrives_s = passage.departs_s + delay + passage.extra_s

    def _extra(self, n_bytes: int, now_s: float) -> float:
        extra = float(self._random.uniform(0, self._link.jitter_s)) if self._link.jitter_s else 0.0
        loss = self._link.loss[self._link.entry(now_s - self._begin_s)]
        if loss and self._link.stall_s:
            packets = math.ceil(n_bytes / PACKET_BYTES)
            extra += self._link.stall_s * int(self._random.binomial(packets, loss))
        return extra
