"""Symmetric fake quantization in torch: values move to the grid a file will store, gradients pass straight through.

After DQRM (Zhou et al., arXiv:2410.20046, section 3): scale = max|w| / n with n = 2^(bits - 1) - 1, zero point 0. Four
bits store [-8, 7], eight bits [-127, 127], which the TFLite specification demands of weights. Scales have the type that
files store: float16 for rows, float32 for tables and output channels; what training sees is then what a file holds.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from edge_deploy.core.require import require

if TYPE_CHECKING:
    import torch

__all__ = ["channel_scales", "on_grid", "row_scales", "searched_scale", "straight_through", "table_scale"]

SMALLEST_FLOAT = 2.0**-100  # of a float32 scale: products with it must stay normal numbers
SMALLEST_HALF = 2.0**-24
LARGEST_HALF = 65504.0
CHUNK_ROWS = 1 << 16
RANGE_PARTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2)


def table_scale(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """One float32 scale [1] for a table [rows, dim]; no copy of the table is made."""
    low, high = weight.detach().aminmax()
    largest = high.maximum(-low)
    return (largest / _steps(bits)).clamp(min=SMALLEST_FLOAT).reshape(1)


def searched_scale(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """One float32 scale [1] for the least squared error of these rows; large values may be clipped.

    Rows that were looked up count as often as they were, so that what is read most is stored best.
    """
    values = rows.detach().reshape(-1, rows.shape[-1])
    widest = table_scale(values, bits)
    errors = [float((on_grid(values, widest * part, bits) - values).square_().sum()) for part in RANGE_PARTS]
    return widest * RANGE_PARTS[errors.index(min(errors))]


def row_scales(rows: torch.Tensor, bits: int) -> torch.Tensor:
    """A scale for each row [..., dim] -> [..., 1], float32 values that float16 holds exactly."""
    wanted = rows.detach().abs().amax(dim=-1, keepdim=True).div_(_steps(bits)).clamp_(max=LARGEST_HALF)
    scales = wanted.half().float()
    # Below 2^-14 float16 has few digits left: rounding down could clip the row's largest value.
    scales.add_((scales * (1 + 0.45 / _steps(bits)) < wanted) * SMALLEST_HALF)
    return scales.clamp_(min=SMALLEST_HALF)


def channel_scales(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """A float32 scale for each output channel [out, in] -> [out, 1]."""
    return (weight.detach().abs().amax(dim=1, keepdim=True) / _steps(bits)).clamp(min=SMALLEST_FLOAT)


def on_grid(values: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest values that integers of `bits` bits times `scale` can be."""
    low, high = (-8, 7) if bits == 4 else (-127, 127)
    return (values / scale).round_().clamp_(low, high).mul_(scale)


def straight_through(values: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """`on_grid` whose gradient is that of the identity (Bengio et al., arXiv:1308.3432)."""
    result: torch.Tensor = _straight_through().apply(values, scale, bits)
    return result


def _steps(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


@functools.cache
def _straight_through() -> Any:
    torch = require("torch", extra="run-executorch")

    class StraightThrough(torch.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(context: Any, values: Any, scale: Any, bits: int) -> Any:
            return on_grid(values, scale, bits)

        @staticmethod
        def backward(context: Any, gradient: Any) -> tuple[Any, None, None]:
            return gradient, None, None

    return StraightThrough
