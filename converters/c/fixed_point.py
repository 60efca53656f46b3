"""Real factors as the reference kernels hold them: a 31-bit multiplier and a shift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Scale", "exact_multiplier", "quantize_multiplier", "scaled"]


@dataclass(frozen=True, slots=True)
class Scale:
    """multiplier / 2^31 / 2^right_shift; a negative shift goes to the left.

    Attributes:
        low: 31 bits more of the multiplier, where a factor has to be exact.
    """

    multiplier: int
    right_shift: int
    low: int = 0

    @property
    def initializer(self) -> str:
        """As the ed_scale of the C code."""
        return f"{{{self.multiplier}, {self.right_shift}}}"


def quantize_multiplier(factor: float) -> Scale:
    """QuantizeMultiplier of TensorFlow Lite: the factor's mantissa in 31 bits, rounded halves away from zero."""
    if factor == 0.0:
        return Scale(0, 0)
    mantissa, exponent = math.frexp(factor)
    fixed = math.floor(abs(mantissa) * (1 << 31) + 0.5)
    if fixed == 1 << 31:
        fixed //= 2
        exponent += 1
    if exponent < -31:
        return Scale(0, 0)
    return Scale(fixed, -exponent)


def exact_multiplier(factor: float) -> Scale:
    """All bits of a double: the reference kernels scale the sums of dense layers in double precision, rounding once."""
    mantissa, exponent = math.frexp(factor)
    if factor <= 0.0 or exponent < -31:
        return Scale(0, 0)
    fixed = int(mantissa * (1 << 53)) << 9
    return Scale(fixed >> 31, -exponent, fixed & ((1 << 31) - 1))


def scaled(value: np.ndarray, scale: Scale) -> np.ndarray:
    """MultiplyByQuantizedMultiplier with its two roundings, on int64 arrays that hold int32 values."""
    x = np.asarray(value, np.int64)
    right = max(scale.right_shift, 0)
    high = (((x << max(-scale.right_shift, 0)) * scale.multiplier) + (1 << 30)) >> 31
    mask = (1 << right) - 1
    result: np.ndarray = (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))
    return result
