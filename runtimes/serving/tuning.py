"""Find the batch size and waiting time that carry the largest load with the 95th percentile within a limit.

The search is DeepRecSched's (Gupta, Hsia et al., ISCA 2020): for one setting, walk along arrival rates until the tail
meets the limit; over settings, climb as long as the load that is carried grows, first along batch sizes, then along the
second knob - theirs the size from which queries go to an accelerator, here the time a batch waits for more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput
from runtimes.serving.queue_model import Setting

__all__ = ["Tuned", "rate_grid", "search_all", "tune"]

# The 95th percentile, in seconds, of one setting at one arrival rate (requests per second).
Probe = Callable[[Setting, float], float]
GRID = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The setting that was found.

    Attributes:
        rate_rps: The largest rate of the grid that it carries; 0 where even the lowest is too much.
        p95_s: There.
        probes: How many were made.
    """

    setting: Setting
    rate_rps: float
    p95_s: float
    probes: int


def rate_grid(capacity_rps: float) -> tuple[float, ...]:
    """Rates to walk along: evenly in their logarithm, from a fiftieth of the capacity to a little beyond it."""
    if not capacity_rps > 0:
        raise BadInput(f"tuning: capacity = {capacity_rps}: must be above 0.")
    return tuple(float(rate) for rate in np.geomspace(capacity_rps / 50, capacity_rps * 1.1, GRID))


def tune(
    probe: Probe, *, rows: Sequence[int], waits_s: Sequence[float], limit_s: float, rates: Sequence[float]
) -> Tuned:
    """DeepRecSched's two climbs.

    Args:
        rows: Batch sizes, ascending; `waits_s` likewise.
        rates: Ascending.

    Raises:
        BadInput: Nothing to choose from, or a limit that is not above 0.
    """
    _check(rows, waits_s, limit_s, rates)
    carried = _Carried(probe, limit_s, rates)
    best = _climb(carried, [Setting(rows=each, wait_s=waits_s[0]) for each in rows])
    # Batches that wait can be of use at another size too: its neighbours are tried as well.
    place = list(rows).index(best.rows)
    for near in rows[max(0, place - 1) : place + 2]:
        found = _climb(carried, [Setting(rows=near, wait_s=each) for each in waits_s])
        best = max(best, found, key=lambda each: (carried.rate(each), -each.rows, -each.wait_s))
    return carried.tuned(best)


def search_all(
    probe: Probe, *, rows: Sequence[int], waits_s: Sequence[float], limit_s: float, rates: Sequence[float]
) -> Tuned:
    """Every setting at every rate: what `tune` is compared with."""
    _check(rows, waits_s, limit_s, rates)
    best, probes = None, 0
    for setting in (Setting(rows=each, wait_s=wait) for each in rows for wait in waits_s):
        for rate in rates:
            p95_s = probe(setting, rate)
            probes += 1
            if p95_s <= limit_s and (best is None or rate > best.rate_rps):
                best = Tuned(setting=setting, rate_rps=rate, p95_s=p95_s, probes=0)
    if best is None:
        best = Tuned(setting=Setting(rows=rows[0], wait_s=waits_s[0]), rate_rps=0.0, p95_s=float("inf"), probes=0)
    return Tuned(setting=best.setting, rate_rps=best.rate_rps, p95_s=best.p95_s, probes=probes)


class _Carried:
    """The largest rate of each setting, each walked along once."""

    def __init__(self, probe: Probe, limit_s: float, rates: Sequence[float]) -> None:
        self._probe, self._limit_s, self._rates = probe, limit_s, tuple(rates)
        self._found: dict[Setting, tuple[int, float]] = {}
        self._last = len(rates) // 2
        self.probes = 0

    def rate(self, setting: Setting) -> float:
        """The largest rate whose tail is within the limit; 0 for none."""
        if setting not in self._found:
            self._found[setting] = self._walk(setting)
        place = self._found[setting][0]
        return self._rates[place] if place >= 0 else 0.0

    def tuned(self, setting: Setting) -> Tuned:
        """The result."""
        rate = self.rate(setting)
        return Tuned(setting=setting, rate_rps=rate, p95_s=self._found[setting][1], probes=self.probes)

    def _walk(self, setting: Setting) -> tuple[int, float]:
        """Faster while the tail is within the limit, slower while it is not, from where the last setting ended, with
        steps that grow and then shrink.
        """
        low, high, p95_at_low = -1, len(self._rates), float("inf")
        place, step = self._last, 1
        while high - low > 1:
            p95_s = self._probe(setting, self._rates[place])
            self.probes += 1
            if p95_s <= self._limit_s:
                low, p95_at_low = place, p95_s
                place = min(place + step, high - 1) if high == len(self._rates) else (low + high) // 2
            else:
                high = place
                place = max(place - step, low + 1) if low == -1 else (low + high) // 2
            step *= 2
        self._last = min(max(low, 0), len(self._rates) - 1)
        return low, p95_at_low


def _climb(carried: _Carried, settings: Sequence[Setting]) -> Setting:
    """Go on while the load grows or stays; two settings that are worse end it: one may be a dent."""
    best, worse = settings[0], 0
    for setting in settings[1:]:
        if carried.rate(setting) > carried.rate(best):
            best, worse = setting, 0
        elif carried.rate(setting) < carried.rate(best):
            worse += 1
            if worse == 2:
                break
    return best


def _check(rows: Sequence[int], waits_s: Sequence[float], limit_s: float, rates: Sequence[float]) -> None:
    if not rows or not waits_s or not rates:
        raise BadInput("tuning: there must be batch sizes, waiting times and rates to choose from.")
    if not limit_s > 0:
        raise BadInput(f"tuning: limit = {limit_s} s: must be above 0.")
    for values in (rows, waits_s, rates):
        if list(values) != sorted(values):
            raise BadInput(f"tuning: {list(values)}: must ascend.")
