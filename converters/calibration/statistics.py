"""What the samples did in the float model: the numbers that the doctor's findings are made of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerStatistics", "ModelStatistics", "NormStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStatistics:
    """Of the output of one layer.

    Attributes:
        lows: Smallest value of each sample.
        highs: Largest value of each sample.
        active: Of each channel of a rectified output, in how many samples it is above zero; empty for others.
        saturated: Of a bounded activation, the share of values at a bound; of ReLU6 and the like at the upper one,
            among values above zero. None for others.
        bias_share: Median over channels of |bias| / standard deviation of the output; None without a bias.
    """

    layer: str
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    active: tuple[int, ...] = ()
    saturated: float | None = None
    bias_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NormStatistics:
    """Input of a batch norm, per channel: what training saw and what the calibration samples give.

    Attributes:
        mean: Running mean of the layer.
        variance: Running variance, with the layer's epsilon.
        seen_mean: Mean over all samples and positions.
        seen_variance: Their variance.
    """

    layer: str
    mean: tuple[float, ...]
    variance: tuple[float, ...]
    seen_mean: tuple[float, ...]
    seen_variance: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """Of a whole model over `samples` samples, layers in the order of computation.

    Attributes:
        norms: Batch norms that no other batch norm comes before; empty where the source holds none (any more).
    """

    samples: int
    layers: tuple[LayerStatistics, ...] = ()
    norms: tuple[NormStatistics, ...] = ()
