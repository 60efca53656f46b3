"""Early stopping as LoadGen does it: which percentile of few latencies can be stated with 99 % confidence.

MLPerf Inference rules, "early stopping": of q queries, t may be over the latency when P(at most t of q | each is over
with probability 1 - p) <= 1 - c; that is the regularised incomplete beta I_p(q - t, t + 1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

__all__ = ["early_stopping_s", "least_queries", "most_discarded"]

CONFIDENCE = 0.99


@functools.cache
def most_discarded(queries: int, percentile: float, *, confidence: float = CONFIDENCE) -> int | None:
    """The most slow queries t of `queries` that may lie above what is stated; None where there are too few queries."""
    if _at_most(0, queries, 1 - percentile) > 1 - confidence:
        return None
    low, high = 0, queries
    while high - low > 1:
        middle = (low + high) // 2
        if _at_most(middle, queries, 1 - percentile) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low or None


def early_stopping_s(latencies_s: Sequence[float], percentile: float) -> float | None:
    """Seconds that the percentile does not exceed with 99 % confidence; None where there are too few queries.

    The t - 1 slowest are discarded; the slowest of the rest is stated.
    """
    allowed = most_discarded(len(latencies_s), percentile)
    if allowed is None:
        return None
    return sorted(latencies_s)[len(latencies_s) - allowed]


def least_queries(percentile: float, *, confidence: float = CONFIDENCE) -> int:
    """From how many queries on something can be stated of this percentile."""
    queries = 2
    while most_discarded(queries, percentile, confidence=confidence) is None:
        queries += 1
    return queries


def _at_most(most: int, trials: int, chance: float) -> float:
    """P(binomial(trials, chance) <= most), summed from its largest term down in logarithms."""
    if most >= trials:
        return 1.0
    total = 0.0
    for count in range(most, -1, -1):
        logarithm = (
            math.lgamma(trials + 1)
            - math.lgamma(count + 1)
            - math.lgamma(trials - count + 1)
            + count * math.log(chance)
            + (trials - count) * math.log1p(-chance)
        )
        term = math.exp(logarithm)
        total += term
        if term < 1e-18 * max(total, 1e-300) and count < trials * chance:
            break
    return total
