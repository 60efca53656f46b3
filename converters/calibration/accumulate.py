"""Take in a layer's output batch by batch and give its statistics; pure NumPy, the same for every runtime."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from converters.calibration.statistics import LayerStatistics, NormStatistics

__all__ = ["LayerObserver", "Moments"]


@dataclass(slots=True)
class Moments:
    """Sums of a tensor's channels, in double precision and around the first batch's mean, against cancellation."""

    count: int = 0
    origin: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sums: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def see(self, values: np.ndarray, axis: int) -> None:
        """Take in one batch, channels along `axis`."""
        rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]).astype(np.float64)
        if not self.count:
            self.origin = rows.mean(axis=0)
            self.sums, self.squares = np.zeros_like(self.origin), np.zeros_like(self.origin)
        rows -= self.origin
        self.count += len(rows)
        self.sums += rows.sum(axis=0)
        self.squares += np.square(rows).sum(axis=0)

    @property
    def mean(self) -> np.ndarray:
        """Of each channel."""
        result: np.ndarray = self.origin + self.sums / max(self.count, 1)
        return result

    @property
    def variance(self) -> np.ndarray:
        """Of each channel."""
        count = max(self.count, 1)
        result: np.ndarray = np.maximum(self.squares / count - np.square(self.sums / count), 0.0)
        return result

    def against(self, layer: str, mean: np.ndarray, variance: np.ndarray) -> NormStatistics:
        """Beside the running statistics of a batch norm that reads this tensor."""
        return NormStatistics(
            layer=layer,
            mean=_floats(mean),
            variance=_floats(variance),
            seen_mean=_floats(self.mean),
            seen_variance=_floats(self.variance),
        )


@dataclass(slots=True)
class LayerObserver:
    """One layer's output.

    Attributes:
        axis: Where its channels are.
        rectified: Count channels above zero.
        bounds: Values at which a bounded activation is full, None without: at or above the last, and with two also at
            or below the first.
        bias: Of the layer, one for each channel; None without.
    """

    layer: str
    axis: int
    rectified: bool = False
    bounds: tuple[float, ...] | None = None
    bias: np.ndarray | None = None
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    active: np.ndarray | None = None
    full: int = 0
    values: int = 0
    moments: Moments = field(default_factory=Moments)

    def see(self, values: np.ndarray) -> None:
        """Take in one batch [samples, ...]."""
        flat = values.reshape(len(values), -1)
        if not flat.size:
            return
        self.lows += flat.min(axis=1).tolist()
        self.highs += flat.max(axis=1).tolist()
        if self.rectified:
            channels = np.moveaxis(values, self.axis, -1)
            hits = (channels.reshape(len(values), -1, channels.shape[-1]).max(axis=1) > 0).sum(axis=0)
            self.active = hits if self.active is None else self.active + hits
        if self.bounds is not None:
            full, counted = values >= self.bounds[-1], values > 0
            if len(self.bounds) > 1:
                full, counted = full | (values <= self.bounds[0]), np.ones_like(full)
            self.full += int(full.sum())
            self.values += int(counted.sum())
        if self.bias is not None and values.shape[self.axis] == len(self.bias):
            self.moments.see(values, self.axis)

    def statistics(self) -> LayerStatistics:
        """What was seen."""
        return LayerStatistics(
            layer=self.layer,
            lows=tuple(self.lows),
            highs=tuple(self.highs),
            active=() if self.active is None else tuple(int(hits) for hits in self.active),
            saturated=self.full / self.values if self.values else None,
            bias_share=self._bias_share(),
        )

    def _bias_share(self) -> float | None:
        if self.bias is None or not self.moments.count or not self.bias.any():
            return None
        used = self.bias != 0
        deviation = np.sqrt(self.moments.variance[used])
        size = np.abs(self.bias[used]).astype(np.float64)
        # A channel that stays silent says nothing of the scale.
        heard = deviation > 0
        return float(np.median(size[heard] / deviation[heard])) if heard.any() else None


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.asarray(values, np.float64))
