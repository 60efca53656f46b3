"""Ranges of activations over a stream of arrays: the true minimum and maximum, and central percentiles."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["HistogramObserver", "MinMaxObserver", "Range"]

BINS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Smallest and largest value of a tensor."""

    low: float
    high: float

    def union(self, other: Range) -> Range:
        """The smallest range that holds both."""
        return Range(low=min(self.low, other.low), high=max(self.high, other.high))


@dataclass(slots=True)
class MinMaxObserver:
    """The true extremes over everything seen: no moving average, so the order of samples does not matter."""

    name: str
    low: float = np.inf
    high: float = -np.inf

    def see(self, values: np.ndarray) -> None:
        """Take in one array.

        Raises:
            BadInput: It holds NaN or infinity.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise BadInput(
                f"tensor {self.name}: NaN or infinity during calibration: the float model computes it from these "
                "samples; check the model and the calibration data."
            )
        self.low, self.high = min(self.low, low), max(self.high, high)

    def range(self) -> Range:
        """What was seen; [0, 0] when nothing was."""
        return Range(low=self.low, high=self.high) if self.low <= self.high else Range(low=0.0, high=0.0)


@dataclass(slots=True)
class HistogramObserver:
    """Second pass over the same samples: counts between known extremes, from which percentiles follow.

    A histogram needs the extremes first; two passes keep memory constant and the answer independent of the order.
    """

    extremes: Range
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def see(self, values: np.ndarray) -> None:
        """Take in one array."""
        if self.extremes.high > self.extremes.low:
            bounds = (self.extremes.low, self.extremes.high)
            self.counts += np.histogram(values, bins=BINS, range=bounds)[0]

    def range(self, percentile: float) -> Range:
        """The central `percentile` percent: half of the rest is clipped on either side, never across zero."""
        total = int(self.counts.sum())
        if not total:
            return self.extremes
        tail = (1.0 - percentile / 100.0) / 2.0 * total
        edges = np.linspace(self.extremes.low, self.extremes.high, BINS + 1)
        cumulative = np.cumsum(self.counts)
        low = edges[int(np.searchsorted(cumulative, tail, side="right"))]
        high = edges[int(np.searchsorted(cumulative, total - tail, side="left")) + 1]
        return Range(low=float(low), high=float(high))
