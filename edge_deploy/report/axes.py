"""Map values to a drawing: linear and logarithmic scales with round ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Scale", "scale_for"]

ROUND_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
# From this factor between the smallest and the largest value on, a linear axis hides the small ones.
LOGARITHMIC_FROM = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Values in [low, high] go to [start, end] on the page."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """Where a value lies on the page; values outside lie at the border."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def scale_for(values: list[float], *, start: float, end: float, may_be_logarithmic: bool, margin: float = 0.1) -> Scale:
    """A scale that shows all values with some air around them.

    Args:
        values: At least one, all finite.
        may_be_logarithmic: For positive amounts; used when they differ by much.
        margin: Air at each side, as a share of the range.
    """
    low, high = min(values), max(values)
    if may_be_logarithmic and low > 0 and high / low >= LOGARITHMIC_FROM:
        air = (high / low) ** margin
        low, high = low / air, high * air
        return Scale(low=low, high=high, start=start, end=end, logarithmic=True, ticks=_log_ticks(low, high))
    spread = (high - low) or abs(high) * 0.2 or 1.0
    padded_low = low - margin * spread
    # Sizes and times do not go below nothing.
    low, high = (max(padded_low, 0.0) if may_be_logarithmic else padded_low), high + margin * spread
    return Scale(low=low, high=high, start=start, end=end, logarithmic=False, ticks=_linear_ticks(low, high))


def _linear_ticks(low: float, high: float, *, about: int = 5) -> tuple[float, ...]:
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in ROUND_STEPS if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(number * step, 12) for number in range(first, last + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if 2 <= len(ticks) <= 6:
            return tuple(ticks)
    return tuple(ticks[:: math.ceil(len(ticks) / 6)])
