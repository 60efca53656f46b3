"""Look the cut up in a table by uplink, edge load and round trip: what an app without a cost model can do.

With an argument the table is read from the file that `edge-deploy plan --table` writes. Without one it is learned, on
a grid that is read by the same rule: in every cell the cut that was best on average when this was measured on the
training traces; cells that were seen too rarely hold what the cost model says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import read_json
from partitioner.cut_table import CutTable
from partitioner.plan_table import PlanTable
from partitioner.policy import Policy, State, Training, static_cut
from partitioner.setting import expected_s

__all__ = ["ThresholdTable", "cells", "train"]

LOADS = (0.0, 0.25, 0.5, 0.75, 1.0)
SLOWEST_BPS, FASTEST_BPS, RATES = 2e4, 1e9, 40
# Ticks that a cell needs before what happened in it counts more than the cost model.
ENOUGH = 30
# Without training traces the cost model needs some round trip.
USUAL_RTT_S = 0.05
Axes = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ThresholdTable(Policy):
    """Follows the table.

    Attributes:
        axes: Uplinks, edge loads and round trips, each increasing.
        choice: Index of the cut of every cell, the round trip running fastest; the last one is for a dead link.
    """

    axes: Axes
    choice: np.ndarray

    foresees_seconds: ClassVar[bool] = False

    def foresee(self, state: State, looked: Mapping[str, np.ndarray]) -> tuple[State, np.ndarray]:
        """0 for the cut that the table says, 1 for the others: a table knows no latencies."""
        wanted = self.choice[cells(self.axes, looked)]
        rows = np.ones((len(wanted), len(self.table.cuts)))
        rows[np.arange(len(wanted)), wanted] = 0.0
        return state, rows

    def choose(self, state: State, now_s: float, best: int, row: np.ndarray) -> State:
        """What the table says."""
        return state if best == state.cut else State(cut=best, since_s=now_s)


def cells(axes: Axes, conditions: Mapping[str, np.ndarray]) -> np.ndarray:
    """The cell of each condition by the rule of `partitioner.plan_table`; -1, the last, for a dead link; shape (n,)."""
    uplink, load, rtt = (np.asarray(conditions[name]) for name in ("uplink_bps", "edge_load", "rtt_s"))
    link = np.searchsorted(axes[0], uplink, side="right") - 1
    busy = np.minimum(np.searchsorted(axes[1], load), len(axes[1]) - 1)
    delay = np.minimum(np.searchsorted(axes[2], rtt), len(axes[2]) - 1)
    return np.where(link < 0, -1, (link * len(axes[1]) + busy) * len(axes[2]) + delay)


def train(table: CutTable, training: Training, name: str, argument: str) -> ThresholdTable:
    """Read or learn the table.

    Raises:
        BadInput: The file is none, names cuts that this model has not, or has cells without a cut.
    """
    axes, choice = _read(table, Path(argument)) if argument else _learn(table, training)
    first = static_cut(table, training)
    return ThresholdTable(name=name, table=table, setting=training.setting, first=first, axes=axes, choice=choice)


def _read(table: CutTable, path: Path) -> tuple[Axes, np.ndarray]:
    found = read_json(PlanTable, path)
    unknown = sorted({cut.id for cut in found.cuts} - set(table.cuts))
    if unknown:
        raise BadInput(
            f"{path}: was made for {found.artifact}; this model has no legal cut {', '.join(unknown)}, or a "
            "constraint rules it out."
        )
    places = [table.cuts.index(cut.id) for cut in found.cuts]
    cells_of_file = (*found.choice, found.without_link if found.without_link >= 0 else found.choice[0])
    if min(cells_of_file) < 0:
        raise BadInput(f"{path}: has cells in which no cut keeps the constraints; a policy needs a cut everywhere.")
    return (found.uplink_bps, found.edge_load, found.rtt_s), np.array([places[cell] for cell in cells_of_file])


def _learn(table: CutTable, training: Training) -> tuple[Axes, np.ndarray]:
    played = training.replay(table)
    rates = tuple(float(rate) for rate in np.geomspace(SLOWEST_BPS, FASTEST_BPS, RATES))
    axes: Axes = (rates, LOADS, (USUAL_RTT_S,))
    # The middle of every cell, and a dead link.
    step = rates[1] / rates[0]
    uplink, load = np.meshgrid(np.array(rates) * step**0.5, np.maximum(np.array(LOADS) - 0.125, 0), indexing="ij")
    grid = {"uplink_bps": np.append(uplink.ravel(), 0.0), "edge_load": np.append(load.ravel(), 0.0)}
    others = {"downlink_bps": 1e7, "rtt_s": USUAL_RTT_S}
    if played:
        names = [field for field in CONDITION_FIELDS if field not in grid]
        others = {field: float(np.median(np.concatenate([told[field] for told, _ in played]))) for field in names}
    grid |= {field: np.full(len(grid["uplink_bps"]), value) for field, value in others.items()}
    choice = expected_s(table, grid, training.setting).argmin(axis=1)
    if played:
        cell = np.concatenate([cells(axes, told) for told, _ in played])
        taken = np.concatenate([seconds for _, seconds in played])
        for place, count in zip(*np.unique(cell, return_counts=True), strict=True):
            if count >= ENOUGH:
                choice[place] = int(taken[cell == place].mean(axis=0).argmin())
    return axes, choice
