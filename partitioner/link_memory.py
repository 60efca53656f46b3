"""What transfers really took after each measured rate: the part of the learned policy that remembers.

The cost model says bytes * 8 / rate with the rate measured last. The rate moves on: after a very low measurement it
mostly recovers while the bytes travel, after a very high one it mostly falls. So for every level of the measured rate
and every cut the memory keeps the mean of what a transfer took, and its spread. A dead link has a level for how long it
has been dead: most outages end within a tick or two, those that do not go on. The memory is filled from training
traces, goes on learning from every new measurement (the rates of the last ticks tell what a transfer that began before
them took), and where it has seen little it returns what the cost model says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["FLOOR_BPS", "LinkMemory", "dead_floor", "dead_ticks", "empty", "look_back_s", "recall", "remember"]

FLOOR_BPS = 1e4
# Less than this share of what is usual means that the link was dead for most of the tick.
NEXT_TO_NOTHING = 0.01
PER_DECADE = 5
DECADES = 6
# The first levels are a link that has been dead for at least so many ticks, the others rates
# floor_bps * 10 ** (k / PER_DECADE).
DEAD_FOR = np.array([1, 2, 3, 5, 9])
DEAD = len(DEAD_FOR)
LEVELS = DEAD + 1 + PER_DECADE * DECADES
# A level that was seen this often is believed as much as the cost model, which says that a dead link stays dead.
PRIOR_TICKS = np.where(np.arange(LEVELS) < DEAD, 1.0, 5.0)
# What the cost model says about one transfer is off by about this share.
PRIOR_ERROR = 0.5
# Neighbouring ticks tell much the same: so many of them count as one independent look; of an outage, all its ticks that
# fall into a level.
SAME_LOOK = np.concatenate((np.diff(DEAD_FOR), np.full(LEVELS - DEAD + 1, 8.0)))
# Older ticks fade: a level remembers about so many.
REMEMBERED = 2000.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkMemory:
    """Sums over what was seen, by level of the measured rate and by cut.

    Attributes:
        count: Ticks seen; shape (LEVELS,).
        took_s: Sum of the seconds on the uplink, each at most `most_s`; `took_squared`: of their squares; shape
            (LEVELS, C).
        late: Sum over transfers that were not done by `most_s`.
        model_s: Sum of what the cost model said.
        up_bits: Shape (C,).
        most_s: A request is finished on the edge after that long.
        floor_bps: A link that carries less counts as dead.
    """

    count: np.ndarray
    took_s: np.ndarray
    took_squared: np.ndarray
    late: np.ndarray
    model_s: np.ndarray
    up_bits: np.ndarray
    most_s: float
    floor_bps: float = FLOOR_BPS


def empty(up_bytes: np.ndarray, most_s: float, usual_bps: float = 0.0) -> LinkMemory:
    """A memory that returns what the cost model says; `usual_bps`: what the link mostly carries, where it is known."""
    shape = (LEVELS, len(up_bytes))
    return LinkMemory(
        count=np.zeros(LEVELS),
        took_s=np.zeros(shape),
        took_squared=np.zeros(shape),
        late=np.zeros(shape),
        model_s=np.zeros(shape),
        up_bits=np.maximum(up_bytes, 0.125) * 8.0,
        most_s=most_s,
        floor_bps=dead_floor(usual_bps),
    )


def dead_floor(usual_bps: float) -> float:
    """A link that mostly carries `usual_bps` counts as dead below this."""
    return max(FLOOR_BPS, NEXT_TO_NOTHING * usual_bps)


def dead_ticks(memory: LinkMemory, rate_bps: np.ndarray, before: int = 0) -> np.ndarray:
    """How many ticks in a row the link has been dead at each one, itself included; `before`: ahead of the first."""
    dead = np.asarray(rate_bps) < memory.floor_bps
    place = np.arange(len(dead))
    alive = np.maximum.accumulate(np.where(dead, -1 - before, place))
    return np.where(dead, place - alive, 0)


def remember(memory: LinkMemory, rate_bps: np.ndarray, dead_for: np.ndarray, took_s: np.ndarray) -> LinkMemory:
    """The memory after transfers that began when `rate_bps` had been measured.

    Args:
        rate_bps: Shape (n,). `dead_for`: see `dead_ticks`; shape (n,).
        took_s: Seconds on the uplink of every cut's bytes, inf for never; shape (n, C).
    """
    level, share = _levels(memory, rate_bps, dead_for)
    took = np.minimum(took_s, memory.most_s)
    is_late = (took_s >= memory.most_s).astype(float)
    said = _said(memory, rate_bps)
    count = memory.count.copy()
    np.add.at(count, level, 1 - share)
    np.add.at(count, level + (share > 0), share)
    # Only levels that were seen now can have become too many.
    touched = np.unique(np.concatenate((level, level + (share > 0)))) if len(level) > 1 else level[0] + np.arange(2)
    fade = np.minimum(1.0, REMEMBERED / np.maximum(count[touched], 1.0))
    # One matrix product in place of two scattered sums: rows of the levels that were seen, columns of ticks.
    weight = (touched[:, None] == level) * (1 - share) + (touched[:, None] == level + 1) * share
    count[touched] *= fade

    def added(sums: np.ndarray, values: np.ndarray) -> np.ndarray:
        sums = sums.copy()
        sums[touched] = (sums[touched] + weight @ values) * fade[:, None]
        return sums

    return replace(
        memory,
        count=count,
        took_s=added(memory.took_s, took),
        took_squared=added(memory.took_squared, took * took),
        late=added(memory.late, is_late),
        model_s=added(memory.model_s, said),
    )


def recall(memory: LinkMemory, rate_bps: np.ndarray, dead_for: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What to expect after each measurement.

    Returns:
        Mean seconds on the uplink, the standard error of that mean, and the share that comes too late; each (n, C).
    """
    level, share = _levels(memory, rate_bps, dead_for)
    upper = level + (share > 0)
    said = _said(memory, rate_bps)
    prior = (PRIOR_ERROR * said) ** 2
    never = said >= memory.most_s
    stretch, variance, late = 0.0, 0.0, 0.0
    for at, part in ((level, 1 - share), (upper, share)):
        count, part = memory.count[at][:, None], part[:, None]
        believed, same = PRIOR_TICKS[at][:, None], SAME_LOOK[at][:, None]
        seen = np.maximum(count, 1e-9)
        took, squared, model = memory.took_s[at] / seen, memory.took_squared[at] / seen, memory.model_s[at] / seen
        # How much longer than the model says it took, with `believed` transfers that took what it says.
        stretch = stretch + part * (count * took + believed * model + 1e-12) / ((count + believed) * model + 1e-12)
        doubt = believed / (count + believed)
        spread = (1 - doubt) * np.maximum(squared - took * took, 0.0) + doubt * prior
        variance = variance + part * spread / np.maximum((count + believed) / same, 1.0)
        late = late + part * (memory.late[at] + believed * never) / (count + believed)
    return np.minimum(stretch * said, memory.most_s), np.sqrt(variance), np.asarray(late)


def look_back_s(memory: LinkMemory, rates_bps: np.ndarray, tick_s: float, start_s: np.ndarray) -> np.ndarray:
    """Seconds that transfers took over the rates of some ticks; inf when they were not done by the end of them.

    Args:
        rates_bps: Mean rate of consecutive ticks; shape (h,).
        start_s: When each cut's transfer began, from the start of the first tick; shape (C,).

    Returns:
        Shape (C,).
    """
    edges = np.arange(len(rates_bps) + 1) * tick_s
    # Next to nothing in place of nothing keeps the integral invertible.
    carried = np.concatenate(([0.0], np.cumsum(np.maximum(rates_bps, 1e-3) * tick_s)))
    begun = np.minimum(start_s, edges[-1])
    end = np.interp(np.interp(begun, edges, carried) + memory.up_bits, carried, edges, right=np.inf)
    return np.asarray(np.where(end < edges[-1], end - begun, np.inf))


def _levels(memory: LinkMemory, rate_bps: np.ndarray, dead_for: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level at or below each rate, and how far it is on the way to the next one, 0 to 1."""
    rate = np.asarray(rate_bps, dtype=float)
    most = LEVELS - DEAD - 1
    place = np.clip(PER_DECADE * np.log10(np.maximum(rate / memory.floor_bps, 1.0)), 0.0, float(most))
    level = np.minimum(place.astype(np.int64), most - 1)
    share = place - level
    dead = rate < memory.floor_bps
    since = np.searchsorted(DEAD_FOR, np.maximum(dead_for, 1), side="right") - 1
    return np.where(dead, since, level + DEAD), np.where(dead, 0.0, share)


def _said(memory: LinkMemory, rate_bps: np.ndarray) -> np.ndarray:
    rate = np.maximum(np.asarray(rate_bps, dtype=float), 1e-3).reshape(-1, 1)
    return np.asarray(np.minimum(memory.up_bits / rate, memory.most_s))
