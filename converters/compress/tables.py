"""Few bits for trained embedding tables, without training: which scales, how values are rounded, which rows stay wide.

A table that was compressed lies on the grid that a file stores, hot rows apart, and its scales travel beside it in the
checkpoint (`converters.recommender.trained`), so that every format stores the very same integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from converters.quantize.row_ranges import (
    greedy_scales,
    rounded_up,
    row_errors,
    stochastic_codes,
    widest_scales,
)
from converters.quantize.uniform import integer_limits
from edge_deploy.core.errors import BadInput

__all__ = ["CompressedTable", "TablePlan", "Tried", "compress_table", "hottest", "try_table"]

RangeSearch: TypeAlias = Literal["min-max", "greedy"]
Rounding: TypeAlias = Literal["nearest", "stochastic"]
CHUNK_ROWS = 1 << 16
TRIED_ROWS = 1 << 15
SHARES = np.linspace(1.0, 0.4, 61)  # of the widest scale of a table


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """What is made of tables.

    Attributes:
        scale: One for each row (float16), or one for the table (float32).
        range: Scales that reach the extremes, or those of least squared error.
        seed: Of stochastic rounding.
        hot_bits: Of rows that stay wide: 16 or 32.
    """

    bits: int = 4
    scale: Literal["row", "table"] = "row"
    range: RangeSearch = "greedy"
    rounding: Rounding = "nearest"
    seed: int = 0
    hot_bits: int = 16

    def __post_init__(self) -> None:
        problems = []
        if self.bits not in (4, 8):
            problems.append(f"tables: bits = {self.bits}: must be 4 or 8.")
        if self.scale not in ("row", "table"):
            problems.append(f"tables: scale = {self.scale}: must be row or table.")
        if self.range not in ("min-max", "greedy"):
            problems.append(f"tables: range = {self.range}: must be min-max or greedy.")
        if self.rounding not in ("nearest", "stochastic"):
            problems.append(f"tables: rounding = {self.rounding}: must be nearest or stochastic.")
        if self.hot_bits not in (16, 32):
            problems.append(f"tables: hot_bits = {self.hot_bits}: must be 16 or 32.")
        if problems:
            raise BadInput(*problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedTable:
    """A table on its grid.

    Attributes:
        values: float32 [rows, dim]: integers times scales, hot rows in their own type's numbers.
        scales: float32 [rows] that float16 holds, or [1].
        hot: int64, ascending.
        error: Root of the mean squared error over that of the values, hot rows included.
    """

    values: np.ndarray
    scales: np.ndarray
    hot: np.ndarray
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What one way would make of a table.

    Attributes:
        error: As of `CompressedTable`, of at most 32,768 rows spread over the table.
        row_bytes: Of a row in a file, with its scale.
    """

    scale: Literal["row", "table"]
    range: RangeSearch
    rounding: Rounding
    error: float
    row_bytes: float


def compress_table(weight: np.ndarray, plan: TablePlan, hot: np.ndarray | None = None) -> CompressedTable:
    """Move a table [rows, dim] to its grid.

    Args:
        hot: Numbers of the rows that stay wide, ascending.

    Raises:
        BadInput: It holds NaN or infinity, or values whose scales no float16 holds.
    """
    weight = np.asarray(weight, np.float32)
    if not np.isfinite(weight).all():
        raise BadInput("holds NaN or infinity; train it again or repair the checkpoint.")
    hot = np.zeros(0, np.int64) if hot is None else np.asarray(hot, np.int64)
    with np.errstate(over="ignore", invalid="ignore"):  # looked at in the next line
        scales = _scales(np.delete(weight, hot, axis=0) if plan.scale == "table" else weight, plan)
    if not np.isfinite(scales).all():
        raise BadInput("its values are too large for float16 scales; take one scale for the table.")
    values = np.empty_like(weight)
    for start in range(0, len(weight), CHUNK_ROWS):
        part = weight[start : start + CHUNK_ROWS]
        own = scales if plan.scale == "table" else scales[start : start + CHUNK_ROWS]
        wide = own.astype(np.float32).reshape(-1, 1)
        values[start : start + len(part)] = _codes(part, own, plan, start) * wide
    values[hot] = weight[hot].astype(np.float16 if plan.hot_bits == 16 else np.float32)
    return CompressedTable(values=values, scales=scales.astype(np.float32), hot=hot, error=_relative(values, weight))


def _codes(rows: np.ndarray, scales: np.ndarray, plan: TablePlan, start: int) -> np.ndarray:
    if plan.rounding == "stochastic":
        return stochastic_codes(rows, scales, bits=plan.bits, seed=plan.seed, start=start).astype(np.float32)
    bottom, top = integer_limits(plan.bits, narrow=plan.bits == 8)
    codes: np.ndarray = np.clip(np.rint(rows / scales.astype(np.float32).reshape(-1, 1)), bottom, top)
    return codes


def _scales(rows: np.ndarray, plan: TablePlan) -> np.ndarray:
    if plan.scale == "row":
        find = greedy_scales if plan.range == "greedy" else widest_scales
        return find(rows, bits=plan.bits, dtype=np.float16)
    flat = rows.reshape(1, -1) if rows.size else np.zeros((1, 1), np.float32)
    widest = widest_scales(flat, bits=plan.bits, dtype=np.float32)
    if plan.range == "min-max":
        return widest
    tried = [rounded_up(widest.astype(np.float64) * share, np.float32) for share in SHARES]
    errors = [float(row_errors(rows, scale, bits=plan.bits).sum(dtype=np.float64)) for scale in tried]
    return tried[int(np.argmin(errors))]


def _relative(values: np.ndarray, weight: np.ndarray) -> float:
    total = float(np.square(weight, dtype=np.float64).sum())
    lost = float(np.square(values.astype(np.float64) - weight).sum())
    return float(np.sqrt(lost / total)) if total else 0.0


def try_table(weight: np.ndarray, *, bits: int) -> tuple[Tried, ...]:
    """Every way of storing a table with so many bits, measured on rows spread over it."""
    step = max(1, len(weight) // TRIED_ROWS)
    rows = np.asarray(weight[::step], np.float32)
    dim = weight.shape[1]
    ways: Sequence[tuple[RangeSearch, Rounding]] = (
        ("min-max", "nearest"),
        ("greedy", "nearest"),
        ("min-max", "stochastic"),
    )
    found = []
    for scale in ("table", "row"):
        for search, rounding in ways:
            plan = TablePlan(bits=bits, scale=scale, range=search, rounding=rounding)
            error = compress_table(rows, plan).error
            row_bytes = -(-dim * bits // 8) + (2.0 if scale == "row" else 0.0)
            found.append(Tried(scale=plan.scale, range=search, rounding=rounding, error=error, row_bytes=row_bytes))
    return tuple(found)


def hottest(counts: Mapping[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """The rows that were looked up most often, of all tables together.

    Args:
        counts: How often each row of each table was looked up.
        share: Of all rows; rows that were never looked up are not hot, so that there may be fewer.

    Returns:
        Numbers of rows by table, ascending; of equal counts the first table's first rows.
    """
    if not 0 <= share <= 1:
        raise BadInput(f"hot rows: a share of {share}: must lie in [0, 1].")
    if not counts:
        return {}
    together = np.concatenate([np.asarray(each, np.int64) for each in counts.values()])
    order = np.argsort(-together, kind="stable")[: round(share * len(together))]
    order = np.sort(order[together[order] > 0])
    found, start = {}, 0
    for name, each in counts.items():
        own = order[np.searchsorted(order, start) : np.searchsorted(order, start + len(each))]
        found[name] = own - start
        start += len(each)
    return found
