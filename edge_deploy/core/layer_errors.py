"""How far each layer of an artifact is from the float model: the content of the optional `layers.json`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["IDENTICAL_DB", "LAYERS", "LayerError", "LayerErrors", "WeightHistogram", "snr_db", "weight_histogram"]

LAYERS = "layers.json"
IDENTICAL_DB = 999.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightHistogram:
    """Weights of one layer as they were and as they became, dequantized, counted in the same bins.

    Attributes:
        edges: Bin borders in ascending order, one more than there are bins.
    """

    edges: tuple[float, ...]
    float_counts: tuple[int, ...]
    quantized_counts: tuple[int, ...]

    def __post_init__(self) -> None:
        bins = len(self.edges) - 1
        if bins < 1 or len(self.float_counts) != bins or len(self.quantized_counts) != bins:
            raise BadInput(
                f"histogram: {len(self.edges)} edges, {len(self.float_counts)} and {len(self.quantized_counts)} "
                "counts: there must be one edge more than counts."
            )
        if any(not low < high for low, high in zip(self.edges[:-1], self.edges[1:], strict=True)):
            raise BadInput("histogram: edges must ascend.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """One layer.

    Attributes:
        snr_db: 10 log10(sum float^2 / sum error^2) of its output on the same input; None where it was not measured.
        weight_snr_db: The same of its weights; None without weights.
    """

    layer: str
    snr_db: float | None = None
    weight_snr_db: float | None = None
    weights: WeightHistogram | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerErrors:
    """All layers in topological order.

    Attributes:
        method: How the errors came about, in one line for the reader, e.g. "each layer's output, 16 samples".
    """

    layers: tuple[LayerError, ...]
    method: str = ""


def snr_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of sums of squares; `IDENTICAL_DB` without noise."""
    if noise == 0:
        return IDENTICAL_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-30) / noise), -IDENTICAL_DB, IDENTICAL_DB))


def weight_histogram(before: np.ndarray, after: np.ndarray, *, bins: int = 64) -> WeightHistogram:
    """Count float weights and their dequantized counterparts in the same bins over both their ranges."""
    low = min(float(before.min()), float(after.min()))
    high = max(float(before.max()), float(after.max()))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    return WeightHistogram(
        edges=tuple(float(edge) for edge in edges),
        float_counts=tuple(int(n) for n in np.histogram(before, edges)[0]),
        quantized_counts=tuple(int(n) for n in np.histogram(after, edges)[0]),
    )
