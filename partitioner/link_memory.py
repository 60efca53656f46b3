"""What transfers really took after each measured rate: the part of the learned policy that remembers.

The cost model says bytes * 8 / rate with the rate measured last. The rate moves on: after a very low measurement it
mostly recovers while the bytes travel, after a very high one it mostly falls. So for every level of the measured rate
and every cut the memory keeps the mean of what a transfer took, and its spread. It is filled from training traces, goes
on learning from every new measurement (the rates of the last ticks tell what a transfer that began before them took),
and where it has seen little it returns what the cost model says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["LinkMemory", "empty", "look_back_s", "recall", "remember"]

FLOOR_BPS = 1e4
PER_DECADE = 5
DECADES = 6
# The first level is a dead link, the others are rates FLOOR_BPS * 10 ** (k / PER_DECADE).
LEVELS = 2 + PER_DECADE * DECADES
# A level that was seen this often is believed as much as the cost model.
PRIOR_TICKS = 5.0
# What the cost model says about one transfer is off by about this share.
PRIOR_ERROR = 0.5
# Neighbouring ticks tell much the same: so many of them count as one independent look.
SAME_LOOK = 8.0
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
    """

    count: np.ndarray
    took_s: np.ndarray
    took_squared: np.ndarray
    late: np.ndarray
    model_s: np.ndarray
    up_bits: np.ndarray
    most_s: float


def empty(up_bytes: np.ndarray, most_s: float) -> LinkMemory:
    """A memory that returns what the cost model says."""
    shape = (LEVELS, len(up_bytes))
    return LinkMemory(
        count=np.zeros(LEVELS),
        took_s=np.zeros(shape),
        took_squared=np.zeros(shape),
        late=np.zeros(shape),
        model_s=np.zeros(shape),
        up_bits=np.maximum(up_bytes, 0.125) * 8.0,
        most_s=most_s,
    )


def remember(memory: LinkMemory, rate_bps: np.ndarray, took_s: np.ndarray) -> LinkMemory:
    """The memory after transfers that began when `rate_bps` had been measured.

    Args:
        rate_bps: Shape (n,). `took_s`: seconds on the uplink of every cut's bytes, inf for never; shape (n, C).
    """
    level, share = _levels(rate_bps)
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


def recall(memory: LinkMemory, rate_bps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What to expect after each measurement.

    Returns:
        Mean seconds on the uplink, the standard error of that mean, and the share that comes too late; each (n, C).
    """
    level, share = _levels(rate_bps)
    upper = level + (share > 0)
    said = _said(memory, rate_bps)
    prior = (PRIOR_ERROR * said) ** 2
    never = said >= memory.most_s
    stretch, variance, late = 0.0, 0.0, 0.0
    for at, part in ((level, 1 - share), (upper, share)):
        count, part = memory.count[at][:, None], part[:, None]
        seen = np.maximum(count, 1e-9)
        took, squared, model = memory.took_s[at] / seen, memory.took_squared[at] / seen, memory.model_s[at] / seen
        # How much longer than the model says it took, with PRIOR_TICKS transfers that took what it says.
        stretch = stretch + part * (count * took + PRIOR_TICKS * model + 1e-12) / (
            (count + PRIOR_TICKS) * model + 1e-12
        )
        doubt = PRIOR_TICKS / (count + PRIOR_TICKS)
        spread = (1 - doubt) * np.maximum(squared - took * took, 0.0) + doubt * prior
        variance = variance + part * spread / np.maximum((count + PRIOR_TICKS) / SAME_LOOK, 1.0)
        late = late + part * (memory.late[at] + PRIOR_TICKS * never) / (count + PRIOR_TICKS)
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


def _levels(rate_bps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level at or below each rate, and how far it is on the way to the next one, 0 to 1."""
    rate = np.asarray(rate_bps, dtype=float)
    place = np.clip(PER_DECADE * np.log10(np.maximum(rate, FLOOR_BPS) / FLOOR_BPS), 0.0, LEVELS - 2.0)
    level = np.minimum(place.astype(np.int64), LEVELS - 3)
    share = place - level
    dead = rate < FLOOR_BPS
    return np.where(dead, 0, level + 1), np.where(dead, 0.0, share)


def _said(memory: LinkMemory, rate_bps: np.ndarray) -> np.ndarray:
    rate = np.maximum(np.asarray(rate_bps, dtype=float), 1e-3).reshape(-1, 1)
    return np.asarray(np.minimum(memory.up_bits / rate, memory.most_s))
