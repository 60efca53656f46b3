"""What the link is like, estimated from what real transfers and small probes took. Pure arithmetic on samples.

A request that crossed took `rtt + bytes up / uplink + bytes down / downlink` and the server's own time, which it tells.
Messages next to nothing in size give the round trip; what larger ones take beyond it gives the rates. A transfer that
took no longer than a small message says only that the link is at least so fast.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass

__all__ = ["LinkEstimate", "LinkState"]

# Smaller transfers tell the round trip and not the rate.
SMALL_BYTES = 1400
# What a measurement of time is good for, beside a share of the round trip.
FLOOR_S = 0.0002
FLOOR_SHARE = 0.1
ROUND_TRIPS_KEPT = 9
ROUND_TRIPS_LAST_S = 15.0
# Until something was measured.
FIRST_BPS, FIRST_RTT_S = 10e6, 0.05
FASTEST_BPS = 100e9


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """An estimate.

    Attributes:
        uplink_bps: 0 while the link is known to be dead.
        uplink_age_s: Since the last transfer that told the rate; infinite before the first.
        at_least: The rate is a lower bound: transfers were too short to tell it.
    """

    uplink_bps: float
    downlink_bps: float
    rtt_s: float
    uplink_age_s: float = math.inf
    rtt_age_s: float = math.inf
    at_least: bool = False


class LinkEstimate:
    """Takes samples, tells the state; used by one thread.

    Args:
        weight: Of the newest tick's mean against what was known before, 0 to 1.
    """

    def __init__(self, *, weight: float = 0.7) -> None:
        self._weight = weight
        self._round_trips: deque[tuple[float, float]] = deque(maxlen=ROUND_TRIPS_KEPT)
        self._rates: dict[str, float] = {}
        self._told_s: dict[str, float] = {}
        self._sums = {"up": [0.0, 0.0], "down": [0.0, 0.0]}
        self._most_seen = {"up": 0.0, "down": 0.0}
        self._is_dead = False
        self._at_least = True
        self._is_bound = False  # the uplink is no faster than the rate that is kept

    def round_trip(self, now_s: float, seconds: float) -> None:
        """A message next to nothing in size was answered after so long, the server's own time taken off."""
        self._round_trips.append((now_s, max(seconds, 0.0)))
        self._is_dead = False

    def transfer(self, now_s: float, up_bytes: int, down_bytes: int, wire_s: float) -> None:
        """A request was answered.

        Args:
            wire_s: What it took between sending and answer, without the server's own time.
        """
        self._is_dead = False
        if up_bytes <= SMALL_BYTES and down_bytes <= SMALL_BYTES:
            self.round_trip(now_s, wire_s)
            return
        rtt_s = self._rtt_s(now_s)
        if wire_s < rtt_s:  # the round trip is shorter than was thought
            self._round_trips.append((now_s, wire_s))
            rtt_s = wire_s
        larger, other = ("up", "down") if up_bytes >= down_bytes else ("down", "up")
        size, rest = max(up_bytes, down_bytes), min(up_bytes, down_bytes)
        # The smaller direction at the rate that is known of it; unknown, both are taken as equally fast.
        known = self._rates.get(other)
        on_wire = wire_s - rtt_s - (8 * rest / known if known else 0.0)
        bits = 8.0 * (size if known else size + rest)
        floor = max(FLOOR_S, FLOOR_SHARE * rtt_s)
        if on_wire <= floor:
            self._most_seen[larger] = max(self._most_seen[larger], bits / floor)
        else:
            sums = self._sums[larger]
            sums[0] += bits
            sums[1] += on_wire
        self._told_s[larger] = now_s

    def late(self, now_s: float, up_bytes: int, waited_s: float) -> None:
        """A request got no answer for so long: the uplink carries less than that."""
        if waited_s > 0:
            most = 8.0 * max(up_bytes, 1) / waited_s
            self._rates["up"] = min(self._rates.get("up", FIRST_BPS), most)
            self._is_bound = True
            self._told_s.pop("up", None)  # a bound is no measurement: worth a probe

    def gone(self) -> None:
        """Nothing gets through; until the next sample does."""
        self._is_dead = True

    def state(self, now_s: float) -> LinkState:
        """The estimate now; means over what came since the last call, mixed with what was known."""
        for name, sums in self._sums.items():
            bits, seconds = sums
            old = None if name == "up" and self._is_bound else self._rates.get(name)
            if seconds > 0:
                new = bits / seconds
                self._rates[name] = new if old is None else old ** (1 - self._weight) * new**self._weight
                if name == "up":
                    self._at_least = self._is_bound = False
            elif self._most_seen[name] > (old or 0.0):
                self._rates[name] = min(self._most_seen[name], FASTEST_BPS)
                if name == "up":
                    self._at_least, self._is_bound = True, False
            self._sums[name] = [0.0, 0.0]
            self._most_seen[name] = 0.0
        up = self._rates.get("up", self._rates.get("down", FIRST_BPS))
        down = self._rates.get("down", up)
        last = self._round_trips[-1][0] if self._round_trips else -math.inf
        return LinkState(
            uplink_bps=0.0 if self._is_dead else up,
            downlink_bps=0.0 if self._is_dead else down,
            rtt_s=self._rtt_s(now_s),
            uplink_age_s=now_s - self._told_s.get("up", -math.inf),
            rtt_age_s=now_s - last,
            at_least=self._at_least,
        )

    def _rtt_s(self, now_s: float) -> float:
        """The median of the newest round trips: single ones wait for a busy processor."""
        fresh = [seconds for at, seconds in self._round_trips if now_s - at <= ROUND_TRIPS_LAST_S]
        if fresh:
            return statistics.median(fresh)
        return self._round_trips[-1][1] if self._round_trips else FIRST_RTT_S
