"""Cut by conditions as a small table, for apps that switch by themselves and for the threshold policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS
from edge_deploy.core.errors import BadInput
from partitioner.cut_table import CutTable
from partitioner.setting import Setting, expected_s

__all__ = ["Axis", "DecisionTable", "cells_of", "decision_table", "log_edges"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One measured quantity.

    Attributes:
        field: Of `Conditions`, in its unit, e.g. "uplink_bps".
        edges: Borders between neighbouring cells, increasing; n borders make n + 1 cells, a value on a border
            belongs to the cell above.
    """

    field: str
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.field not in CONDITION_FIELDS:
            raise BadInput(f"decision table: no condition {self.field}; there are {', '.join(CONDITION_FIELDS)}.")
        if any(b <= a for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise BadInput(f"decision table: borders of {self.field} must increase.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionTable:
    """The cut of every cell.

    Attributes:
        model: Name of the artifact it was made for.
        cuts: Ids, one a cell, the last axis running fastest (C order).
        codec: How the boundary is encoded.
    """

    model: str
    codec: str
    axes: tuple[Axis, ...]
    cuts: tuple[str, ...]

    def __post_init__(self) -> None:
        cells = int(np.prod([len(axis.edges) + 1 for axis in self.axes]))
        if len(self.cuts) != cells:
            raise BadInput(f"decision table: has {len(self.cuts)} cuts for {cells} cells.")

    def look_up(self, conditions: Mapping[str, np.ndarray]) -> np.ndarray:
        """Index of the cell of each condition; shape (n,)."""
        return cells_of(self.axes, conditions)


def cells_of(axes: tuple[Axis, ...], conditions: Mapping[str, np.ndarray]) -> np.ndarray:
    """Index of the cell of each condition in C order; shape (n,)."""
    cell = np.zeros(1, dtype=np.int64)
    for axis in axes:
        values = np.asarray(conditions[axis.field], dtype=float)
        cell = cell * (len(axis.edges) + 1) + np.searchsorted(axis.edges, values, side="right")
    return cell


def log_edges(low: float, high: float, per_decade: int = 8) -> tuple[float, ...]:
    """Borders at equal ratios from `low` to `high`."""
    count = max(2, round(np.log10(high / low) * per_decade) + 1)
    return tuple(float(value) for value in np.geomspace(low, high, count))


def decision_table(
    table: CutTable, axes: tuple[Axis, ...], *, model: str, setting: Setting, others: Mapping[str, float]
) -> DecisionTable:
    """The best cut in the middle of each cell by the cost model.

    Args:
        others: Conditions that are no axis, by field; the rates and the round trip are needed.
    """
    middles = [_middles(axis) for axis in axes]
    grid = np.meshgrid(*middles, indexing="ij")
    conditions = {name: np.full(grid[0].size, value) for name, value in others.items()}
    conditions |= {axis.field: values.ravel() for axis, values in zip(axes, grid, strict=True)}
    best = expected_s(table, conditions, setting).argmin(axis=1)
    return DecisionTable(model=model, codec=table.codec, axes=axes, cuts=tuple(table.cuts[i] for i in best))


def _middles(axis: Axis) -> np.ndarray:
    """A value inside each cell: rates grow by ratios, shares and seconds by differences."""
    edges = np.array(axis.edges)
    if axis.field.endswith("_bps"):
        ratio = edges[1] / edges[0] if len(edges) > 1 else 2.0
        return np.concatenate(([edges[0] / ratio], edges[:-1] * np.sqrt(edges[1:] / edges[:-1]), [edges[-1] * ratio]))
    step = edges[1] - edges[0] if len(edges) > 1 else 0.1
    outer = (max(edges[0] - step / 2, 0.0), edges[-1] + step / 2)
    if axis.field.endswith(("_load", "_memory")):
        outer = (outer[0], min(outer[1], 1.0))
    return np.concatenate(([outer[0]], (edges[:-1] + edges[1:]) / 2, [outer[1]]))
