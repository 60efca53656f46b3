"""The rarest values at both ends of a stream of arrays: a central percentile in one pass, exactly. Pure NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from converters.quantize.ranges import Range

__all__ = ["MOST_KEPT", "TailObserver", "tail_rank"]

MOST_KEPT = 1 << 16  # values at each end; where more would be needed, a histogram in a second pass takes less memory


def tail_rank(percentile: float, total: int) -> int:
    """How many of `total` values lie on either side outside the central `percentile` percent."""
    return int((1.0 - percentile / 100.0) / 2.0 * total)


@dataclass(slots=True)
class TailObserver:
    """Keeps the `rank` + 1 smallest and largest values that it has seen.

    Attributes:
        rank: How many values the range leaves out at each end.
    """

    rank: int
    lowest: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    highest: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    def see(self, values: np.ndarray) -> None:
        """Take in one array of finite values."""
        flat = values.reshape(-1)
        keep = self.rank + 1
        # The first of the kept values is the one that is next to be displaced.
        above = flat if len(self.highest) < keep else flat[flat > self.highest[0]]
        if above.size:
            joined = np.concatenate([self.highest, above])
            self.highest = joined if len(joined) < keep else np.partition(joined, -keep)[-keep:]
        below = flat if len(self.lowest) < keep else flat[flat < self.lowest[0]]
        if below.size:
            joined = np.concatenate([self.lowest, below])
            self.lowest = joined if len(joined) < keep else np.partition(joined, keep - 1)[:keep][::-1]

    def range(self) -> Range:
        """The range without `rank` values at each end; [0, 0] when nothing was seen."""
        if not self.lowest.size:
            return Range(low=0.0, high=0.0)
        return Range(low=float(self.lowest.max()), high=float(self.highest.min()))
