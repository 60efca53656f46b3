"""Sums over samples: how far each layer is from the float model, by itself and with all that came before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from converters.debugger.contracts import Arrays, Seen, Site
from edge_deploy.core.layer_errors import snr_db

__all__ = ["SiteStatistics", "batches"]


@dataclass(slots=True, kw_only=True)
class SiteStatistics:
    """What is known of one site."""

    site: Site
    values: int = 0
    clipped: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    signal: float = 0.0
    noise: float = 0.0
    own_values: int = 0
    own_signal: float = 0.0
    own_noise: float = 0.0

    def add(self, seen: Seen) -> None:
        """Take in one batch."""
        name = self.site.layer
        if name in seen.want and name in seen.got:
            want, got = seen.want[name], seen.got[name]
            if want.size:
                self.values += want.size
                self.low, self.high = min(self.low, float(want.min())), max(self.high, float(want.max()))
                self.clipped += self.site.grid.clipped(want) if self.site.grid is not None else 0
                self.signal += float(np.square(want).sum())
                self.noise += float(np.square(want - got).sum())
        if name in seen.own_want and name in seen.own_got:
            want, got = seen.own_want[name], seen.own_got[name]
            self.own_values += want.size
            self.own_signal += float(np.square(want).sum())
            self.own_noise += float(np.square(want - got).sum())

    @property
    def snr_db(self) -> float | None:
        """Of the value in the artifact; None where it was not seen."""
        return snr_db(self.signal, self.noise) if self.values else None

    @property
    def own_snr_db(self) -> float | None:
        """Of the layer by itself; None where that was not seen."""
        return snr_db(self.own_signal, self.own_noise) if self.own_values else None


def batches(samples: Arrays, size: int) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Arrays [size, ...] and how many of their samples are new; the last ones are filled up with the first samples."""
    count = len(next(iter(samples.values())))
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        yield {name: array[rows % count] for name, array in samples.items()}, min(size, count - start)
