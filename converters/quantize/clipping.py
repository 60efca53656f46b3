"""Which range of a histogram to quantize: by relative entropy or by squared error. Pure NumPy.

Both answer the same question, how much to clip so that the values in the middle get finer steps, and both see only the
tensor itself: what its values mean to the next layer they do not know.
"""

from __future__ import annotations

import numpy as np

from converters.quantize.ranges import HistogramObserver, Range
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["chosen_range", "coarsened", "entropy_range", "squared_error_range", "without_spikes"]

LEVELS = 256
CANDIDATES = 128  # thresholds tried on each side by squared error
FULL_BIN = 16  # values in a bin, on average, of a histogram that is not mostly chance
NEIGHBOURS = 16
FEW = 3  # values of an empty neighbourhood that are no spike
ROUNDS = 4  # of the search over both sides in turn


def chosen_range(histogram: HistogramObserver, spec: QuantSpec) -> Range:
    """The range that `spec` asks for, of a histogram over the true extremes."""
    if spec.range_method == "kl":
        return entropy_range(histogram.counts, histogram.extremes)
    if spec.range_method == "mse":
        return squared_error_range(histogram.counts, histogram.extremes)
    return histogram.extremes if spec.range_method == "min-max" else histogram.range(spec.percentile)


def entropy_range(
    counts: np.ndarray, extremes: Range, *, levels: int = LEVELS, thresholds: int = 2 * CANDIDATES
) -> Range:
    """The clipped range whose quantized distribution diverges least from the distribution itself.

    After S. Migacz, "8-bit Inference with TensorRT" (GTC 2017): values beyond a threshold count as the last bin, the
    bins within it are merged into `levels` groups and spread out again over the bins that are not empty; of all
    thresholds the one with the smallest Kullback-Leibler divergence wins, of equal ones the widest. The method is
    about magnitudes; here, with affine quantization, a threshold t keeps [max(low, -t), min(high, t)].

    Values that occur again and again, as zeros behind a ReLU or what a blank background becomes, do not count as a
    shape to be kept: spread over a group of bins they would be most of the divergence, and the range would be cut down
    to where groups are single bins (pytorch-quantization drops its first bin for that reason). Clipped, they count.

    Args:
        counts: Histogram over `extremes`, of more bins than `levels`.
        thresholds: How many are tried, evenly spaced.
    """
    if not counts.sum() or extremes.high <= extremes.low:
        return extremes
    counts = coarsened(counts, levels)
    smooth = without_spikes(counts)
    edges = np.linspace(extremes.low, extremes.high, len(counts) + 1)
    best, found = np.inf, extremes
    seen: tuple[int, int] | None = None
    largest = max(abs(extremes.low), abs(extremes.high))
    # From the widest down, so that among equals the widest stays.
    for threshold in np.linspace(largest, 0.0, thresholds, endpoint=False):
        first = int(np.searchsorted(edges, max(extremes.low, -threshold), side="right")) - 1
        last = int(np.searchsorted(edges, min(extremes.high, threshold), side="left"))
        if (first, last) == seen:
            continue
        if last - first < levels:
            break
        seen = first, last
        divergence = _divergence(counts, smooth, first, last, levels)
        if divergence < best:
            best, found = divergence, Range(low=float(edges[first]), high=float(edges[last]))
    return found


def coarsened(counts: np.ndarray, levels: int) -> np.ndarray:
    """The histogram with pairs of bins merged until bins hold 16 values on average, or are as few as levels.

    Of a few hundred values every fine bin holds one or none, and all divergence is chance; with a bin for each level
    nothing is clipped.
    """
    while len(counts) >= 2 * levels and len(counts) % 2 == 0 and counts.sum() < FULL_BIN * len(counts):
        counts = counts.reshape(-1, 2).sum(axis=1)
    return counts


def without_spikes(counts: np.ndarray) -> np.ndarray:
    """Counts of which none stands far above the mean of the 16 bins on either side."""
    near = np.ones(2 * NEIGHBOURS + 1)
    near[NEIGHBOURS] = 0
    sums = np.convolve(counts, near)[NEIGHBOURS:-NEIGHBOURS]
    sizes = np.convolve(np.ones(len(counts)), near)[NEIGHBOURS:-NEIGHBOURS]
    kept: np.ndarray = np.minimum(counts, 2 * sums / sizes + FEW)
    return kept


def _divergence(counts: np.ndarray, smooth: np.ndarray, first: int, last: int, levels: int) -> float:
    """KL(P || Q) in nats of the bins [first, last); infinite where Q has nothing for what P holds."""
    inside = smooth[first:last].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    if not inside.any():
        return np.inf
    starts = np.arange(levels) * len(inside) // levels
    held = clipped > 0
    sums = np.add.reduceat(inside, starts)
    filled = np.add.reduceat(held.astype(np.float64), starts)
    sizes = np.diff(np.append(starts, len(inside)))
    spread = np.repeat(sums / np.maximum(filled, 1.0), sizes)
    p, q = clipped[held] / clipped.sum(), spread[held] / sums.sum()
    if not q.all():
        return np.inf
    return float(np.sum(p * np.log(p / q)))


def squared_error_range(counts: np.ndarray, extremes: Range, *, levels: int = LEVELS) -> Range:
    """The clipped range with the least squared error of rounding and clipping together.

    The error of every candidate is counted bin by bin (Sung et al., arXiv:1511.06488, and Banner et al.,
    arXiv:1810.05723, minimise the same sum for assumed distributions). Both sides are searched in turn until neither
    moves; the extremes are among the candidates, so that the result is never worse than min-max.

    Args:
        counts: Histogram over `extremes`.
    """
    total = counts.sum()
    if not total or extremes.high <= extremes.low:
        return extremes
    edges = np.linspace(extremes.low, extremes.high, len(counts) + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    if extremes.low <= 0.0 <= extremes.high:  # zero is exact in affine quantization, and the commonest value
        centres[min(int(np.searchsorted(edges, 0.0, side="right")) - 1, len(counts) - 1)] = 0.0
    kept = counts > 0
    values, weights = centres[kept], counts[kept] / total
    # What is quantized must hold zero; a side that does not cross it is not searched.
    low, high = min(extremes.low, 0.0), max(extremes.high, 0.0)
    shares = np.arange(1, CANDIDATES + 1) / CANDIDATES
    lows = low * shares if low < 0 else np.zeros(1)
    highs = high * shares if high > 0 else np.zeros(1)
    for _ in range(ROUNDS):
        before = low, high
        high = float(highs[np.argmin(_errors(values, weights, low, highs, levels))])
        low = float(lows[np.argmin(_errors(values, weights, lows, high, levels))])
        if (low, high) == before:
            break
    return Range(low=max(low, extremes.low), high=min(high, extremes.high))


def _errors(
    values: np.ndarray, weights: np.ndarray, low: np.ndarray | float, high: np.ndarray | float, levels: int
) -> np.ndarray:
    """Mean squared error for each candidate; zero falls on a level, as the runtimes have it."""
    lows, highs = (each[:, None] for each in np.broadcast_arrays(np.atleast_1d(low), np.atleast_1d(high)))
    steps = np.maximum((highs - lows) / (levels - 1), np.finfo(np.float64).tiny)
    zero = np.rint(-lows / steps)
    codes = np.clip(np.rint(values / steps) + zero, 0, levels - 1)
    errors: np.ndarray = ((codes - zero) * steps - values) ** 2 @ weights
    return errors
