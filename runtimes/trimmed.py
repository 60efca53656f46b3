"""The mean of the middle: what an event of a profiler typically takes, on a machine that interrupts some runs."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["trimmed_mean"]

TRIMMED_SHARE = 0.25


def trimmed_mean(values: Sequence[float]) -> float:
    """The mean without the lowest and the highest quarter.

    One interrupted run of a hundred moves the mean of a short event many times over, and a median of whole
    microseconds knows no fractions; this one does neither.
    """
    cut = int(len(values) * TRIMMED_SHARE)
    middle = sorted(values)[cut : len(values) - cut]
    return sum(middle) / len(middle)
