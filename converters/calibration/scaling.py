"""Find samples in other units than the model was trained on, by what the model itself remembers of its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from converters.calibration.finding import Finding
from converters.calibration.statistics import LayerStatistics, NormStatistics

__all__ = ["from_biases", "from_norms", "from_saturation"]

SERIOUS_FACTOR = 4.0
ODD_FACTOR = 1.4  # -1..1 against 0..1 is 1.5 behind padded convolutions; samples like those of training stay below 1.1
SERIOUS_SHIFT = 3.0  # of running deviations
ODD_SHIFT = 0.75
PIXEL_FACTOR = 30.0  # 0-255 against anything within -3..3 is at least 255 / 6
SATURATED = 0.5
BIASES_DROWNED = 0.03  # folded nets: above 0.4 on their own data (four nets), below 0.02 on 255 times it (three)
BIASES_ALONE = 20.0
FEWEST_LAYERS = 3


def from_norms(norms: tuple[NormStatistics, ...], spans: Mapping[str, tuple[float, float]]) -> Iterator[Finding]:
    """Compare what reaches the first batch norms with what reached them in training.

    Until there the network is mostly linear, so that samples k times too large arrive with k times the running
    deviation, and shifted ones with another mean. Medians over channels: single channels differ on any data.

    Args:
        spans: Smallest and largest value of each float input, for the advice.
    """
    for norm in norms:
        variance = np.asarray(norm.variance)
        usable = variance > 1e-6 * np.median(variance)
        deviation = np.sqrt(variance[usable])
        if not deviation.size or not (deviation > 0).all():
            continue
        factor = float(np.median(np.sqrt(np.asarray(norm.seen_variance)[usable]) / deviation))
        shift = float(np.median(np.abs(np.asarray(norm.seen_mean)[usable] - np.asarray(norm.mean)[usable]) / deviation))
        away = max(factor, 1.0 / factor) if factor > 0 else np.inf
        if away < ODD_FACTOR and shift < ODD_SHIFT:
            continue
        serious = away >= SERIOUS_FACTOR or shift >= SERIOUS_SHIFT
        yield Finding(
            severity="serious" if serious else "warning",
            kind="scale",
            where=norm.layer,
            text=f"the samples reach this batch norm with {factor:.3g} times the deviation that training left in it, "
            f"{shift:.2g} deviations from its mean{_spans(spans)}.",
            remedy=_advice(factor, spans),
        )


def _spans(spans: Mapping[str, tuple[float, float]]) -> str:
    if not spans:
        return ""
    return "; inputs " + ", ".join(f"{name} {low:.4g} to {high:.4g}" for name, (low, high) in spans.items())


def _advice(factor: float, spans: Mapping[str, tuple[float, float]]) -> str:
    widest = max((max(abs(low), abs(high)) for low, high in spans.values()), default=0.0)
    if factor >= PIXEL_FACTOR and 2.0 < widest <= 256.0:
        return (
            "This is how pixels of 0-255 look to a model of 0-1 or -1..1: divide by 255, or by 127.5 minus 1, or by "
            "mean and std as in training."
        )
    if factor <= 1.0 / PIXEL_FACTOR and widest <= 4.0:
        return "This is how pixels of 0-1 look to a model that takes 0-255: do not divide them, or do not divide twice."
    if factor >= ODD_FACTOR or factor <= 1.0 / ODD_FACTOR:
        return f"Prepare the samples as in training: they look {_times(factor)} in scale."
    return "Prepare the samples as in training: their zero lies elsewhere (0..1 or -1..1? which mean?)."


def _times(factor: float) -> str:
    return f"{factor:.3g} times too large" if factor >= 1 else f"{1 / max(factor, 1e-9):.3g} times too small"


def from_saturation(layers: tuple[LayerStatistics, ...]) -> Iterator[Finding]:
    """Bounded activations that stand at their bound most of the time: inputs are too large, or the layer is."""
    worst = [layer for layer in layers if layer.saturated is not None and layer.saturated > SATURATED]
    if worst:
        first = worst[0]
        yield Finding(
            severity="warning",
            kind="saturation",
            where=first.layer,
            text=f"{first.saturated:.0%} of its active values stand at the bound"
            + (f", and so do {len(worst) - 1} more layers." if len(worst) > 1 else "."),
            remedy="Check the scale of the samples: inputs many times too large look like this.",
        )


def from_biases(layers: tuple[LayerStatistics, ...], spans: Mapping[str, tuple[float, float]]) -> Iterator[Finding]:
    """Where no batch norm is left: biases that drown in the activations, or activations that drown in the biases.

    A trained bias (with a batch norm folded in: beta minus the mean) is of the size of its channel's deviation. When
    it is far below in most layers, inputs look far too large; when it is twenty times as large in the first, too small.
    Nets that were trained without batch norms on raw pixels may look like this by nature, hence only a warning.
    """
    shares = [(layer.layer, layer.bias_share) for layer in layers if layer.bias_share]
    if len(shares) < FEWEST_LAYERS:
        return
    name, first = shares[0]
    middle = float(np.median([share for _, share in shares]))
    if middle < BIASES_DROWNED:
        text = f"biases are {middle:.2g} of the deviation of their channels (median of {len(shares)} layers): "
        yield _suspected(name, f"{text}the samples look far too large{_spans(spans)}", _advice(PIXEL_FACTOR, spans))
    elif first > BIASES_ALONE:
        text = f"biases are {first:.3g} times the deviation of their channels: what comes in hardly counts"
        yield _suspected(name, f"{text}{_spans(spans)}", _advice(1 / PIXEL_FACTOR, spans))


def _suspected(layer: str, text: str, remedy: str) -> Finding:
    unless = "Unless the model was trained on such values: " + remedy[0].lower() + remedy[1:]
    return Finding(severity="warning", kind="scale", where=layer, text=f"{text}.", remedy=unless)
