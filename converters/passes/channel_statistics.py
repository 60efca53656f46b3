"""Range and power of each channel of a tensor, gathered array by array."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from converters.passes.channel_graph import Statistics

__all__ = ["ChannelObserver"]


@dataclass(slots=True, kw_only=True)
class ChannelObserver:
    """Sees arrays whose last axis is that of the channels.

    Attributes:
        seen: Positions seen.
    """

    channels: int
    seen: int = 0
    low: np.ndarray = field(init=False)
    high: np.ndarray = field(init=False)
    square: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.low, self.high, self.square = np.zeros(self.channels), np.zeros(self.channels), np.zeros(self.channels)

    def see(self, values: np.ndarray) -> None:
        """Take in one array; one that cannot be rows of channels is passed by."""
        if not values.size or values.size % self.channels:
            return
        rows = values.reshape(-1, self.channels)
        self.low = np.minimum(self.low, rows.min(axis=0))
        self.high = np.maximum(self.high, rows.max(axis=0))
        self.square += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        self.seen += len(rows)

    def statistics(self) -> Statistics:
        """Of all that was seen."""
        return Statistics(low=self.low, high=self.high, square=self.square / max(self.seen, 1))
