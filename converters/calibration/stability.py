"""How far ranges still move with more samples, and about how many more would settle them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from converters.calibration.finding import Finding
from converters.calibration.statistics import LayerStatistics

__all__ = ["Growth", "between_halves", "expected_spans", "growth_of", "unsettled_ranges"]

SETTLED = 0.02  # of the range, per doubling of the samples: 5 of the 256 steps of INT8
HALVINGS = 8
UNSTABLE = 0.25  # of the range, between two halves
FEWEST_SAMPLES = 8
MOST_DOUBLINGS = 4  # beyond 16 times the samples an extrapolation from three doublings says nothing
SUBSETS = 20
MOST_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Of the ranges of a model's layers, on average.

    Attributes:
        last_doubling: How much the expected range grew from half of the samples to all, of the whole range.
        more: About so many more samples until a doubling adds less than 2 %; 0 when settled, None when that takes
            more than 16 times as many, or growth does not slow down.
        more_low: The smallest of `more` and the 10th percentile of the same estimate from random three quarters.
        more_high: The largest of `more` and the 90th percentile; None when growth does not slow down there.
    """

    last_doubling: float
    more: int | None
    more_low: int | None
    more_high: int | None


def expected_spans(lows: np.ndarray, highs: np.ndarray, count: int) -> np.ndarray:
    """Expected maximum minus minimum of `count` samples drawn from all without replacement; exact.

    Args:
        lows: Smallest values, [layers, samples].
        highs: Largest values, likewise.
    """
    spans: np.ndarray = _expected_maxima(highs, count) + _expected_maxima(-lows, count)
    return spans


def _expected_maxima(values: np.ndarray, count: int) -> np.ndarray:
    """sum of x_(i) * C(i - 1, count - 1) / C(n, count) over the sorted values x_(1) <= x_(2) ..."""
    ordered = np.sort(values, axis=1)[:, ::-1]
    size = ordered.shape[1]
    # Weight of the largest is count / n; of each next one (n - count - k + 1) / (n - k) times the one before.
    places = np.arange(1, size)
    ratios = np.maximum((size - count - places + 1) / (size - places), 0.0)
    result: np.ndarray = ordered @ (count / size * np.concatenate([[1.0], np.cumprod(ratios)]))
    return result


def growth_of(layers: Sequence[LayerStatistics], *, seed: int = 0) -> Growth | None:
    """How settled the ranges are; None without layers that vary, or with fewer than 8 samples.

    Gains are averaged over layers: the extremes of a single one are too few numbers to extrapolate from.
    """
    lows, highs = _extremes(layers)
    count = highs.shape[1]
    if not len(highs) or count < FEWEST_SAMPLES:
        return None
    random = np.random.default_rng(seed)
    more, last = _extrapolated(lows, highs)
    part = max(FEWEST_SAMPLES, count * 3 // 4)
    others = []
    for _ in range(SUBSETS):
        rows = random.choice(count, part, replace=False)
        estimate = _extrapolated(lows[:, rows], highs[:, rows])[0]
        others.append(np.inf if estimate is None else max(part + estimate - count, 0))
    here = np.inf if more is None else more
    ordered = np.sort(others)
    low, high = min(ordered[SUBSETS // 10], here), max(ordered[SUBSETS - 1 - SUBSETS // 10], here)
    return Growth(
        last_doubling=last,
        more=more,
        more_low=None if np.isinf(low) else int(low),
        more_high=None if np.isinf(high) else int(high),
    )


def _extremes(layers: Sequence[LayerStatistics]) -> tuple[np.ndarray, np.ndarray]:
    """Arrays [layers, samples], of the layers that vary and have as many samples as the first, by their range."""
    count = len(layers[0].highs) if layers else 0
    kept = [each for each in layers if len(each.highs) == count and max(each.highs) > min(each.lows)]
    lows = np.array([each.lows for each in kept], np.float64).reshape(len(kept), count)
    highs = np.array([each.highs for each in kept], np.float64).reshape(len(kept), count)
    if not kept:
        return lows, highs
    spans = highs.max(axis=1, keepdims=True) - lows.min(axis=1, keepdims=True)
    return lows / spans, highs / spans


def _extrapolated(lows: np.ndarray, highs: np.ndarray) -> tuple[int | None, float]:
    """Further samples until a doubling adds less than `SETTLED`, and what the last doubling added.

    The gain of a doubling shrinks by about the same factor each time where tails are bounded, and stays as it is where
    they are exponential; the mean factor over the last three doublings is carried on.
    """
    count = highs.shape[1]
    spans = [float(expected_spans(lows, highs, max(1, count // part)).mean()) for part in (8, 4, 2, 1)]
    if spans[-1] <= 0:
        return 0, 0.0
    first, last = (spans[1] - spans[0]) / spans[-1], (spans[3] - spans[2]) / spans[-1]
    if last < SETTLED:
        return 0, last
    if first <= last:
        return None, last
    doublings = int(np.ceil(2 * np.log(SETTLED / last) / np.log(last / first)))
    return (None if doublings > MOST_DOUBLINGS else count * 2**doublings - count), last


def between_halves(layer: LayerStatistics, *, seed: int = 0) -> float:
    """Median over random halvings: how far the ends of the halves' ranges lie apart, of the whole range."""
    lows, highs = np.asarray(layer.lows), np.asarray(layer.highs)
    whole = float(highs.max() - lows.min())
    random = np.random.default_rng(seed)
    found = []
    for _ in range(HALVINGS):
        order = random.permutation(len(highs))
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        found.append(abs(highs[one].max() - highs[other].max()) + abs(lows[one].min() - lows[other].min()))
    return float(np.median(found)) / whole if whole > 0 else 0.0


def unsettled_ranges(layers: Sequence[LayerStatistics], samples: int) -> Iterator[Finding]:
    """Ranges that differ between halves of the set, and one advice on how many more samples settle the rest."""
    if samples < FEWEST_SAMPLES:
        yield Finding(
            severity="warning",
            kind="more-samples",
            where="",
            text=f"{samples} samples are too few to say whether ranges are settled.",
            remedy="Give at least 100.",
        )
        return
    apart = {layer.layer: between_halves(layer) for layer in layers}
    unstable = sorted((name for name, share in apart.items() if share > UNSTABLE), key=lambda name: -apart[name])
    if unstable:
        shown = ", ".join(f"{name} ({apart[name]:.0%})" for name in unstable[:MOST_NAMED])
        yield Finding(
            severity="warning",
            kind="unstable-range",
            where="",
            text=f"ranges of {len(unstable)} of {len(apart)} layers differ by more than {UNSTABLE:.0%} between two "
            f"halves of the samples: {shown}.",
            remedy="Few samples decide these ranges: add samples, or clip with --ranges percentile or kl.",
        )
    growth = growth_of(layers)
    if growth is None or growth.more == 0:
        return
    yield Finding(
        severity="warning" if growth.more is None or growth.more > samples else "note",
        kind="more-samples",
        where="",
        text=f"the last doubling of the samples widened ranges by {growth.last_doubling:.1%} on average.",
        remedy=_need(growth, samples),
    )


def _need(growth: Growth, samples: int) -> str:
    if growth.more is None:
        return (
            f"It hardly slows down: give at least {samples} more samples, or take ranges that do not follow the "
            "largest value (--ranges percentile, kl or mse)."
        )
    high = f"over {16 * samples}" if growth.more_high is None else str(growth.more_high)
    return (
        f"You need about {growth.more} more samples until a doubling adds less than {SETTLED:.0%}, if growth slows "
        f"down as it has begun to (parts of the set say {growth.more_low} to {high})."
    )
