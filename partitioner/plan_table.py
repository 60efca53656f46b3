"""The best cut at every point of a grid of conditions: a table that an app can look up without this package."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS, Conditions
from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import BadInput, NoFeasiblePlan
from partitioner.candidates import legal_cuts
from partitioner.cost import as_arrays, cost
from partitioner.decision import Prepared, prepare
from partitioner.plan import proposals
from partitioner.problem import Problem
from partitioner.solvers.enumerate import BestCuts, best_cuts

__all__ = ["RULE", "Grid", "PlanTable", "TableCut", "grid_conditions", "look_up", "plan_table"]

RULE = (
    "Take the largest uplink_bps that is not above the measured one, the smallest edge_load and the smallest rtt_s "
    "that are not below the measured ones, or the last of the axis where all are below. choice[(u * len(edge_load) "
    "+ e) * len(rtt_s) + r] is the index in cuts; -1: no cut keeps the constraints. Below the smallest uplink_bps "
    "take without_link, an index in cuts or -1."
)
_AXES = ("uplink_bps", "edge_load", "rtt_s")
_MBIT = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The conditions that a table tells apart; each axis increases."""

    uplink_bps: tuple[float, ...] = tuple(
        _MBIT * rate for rate in (0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000)
    )
    edge_load: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    rtt_s: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

    def __post_init__(self) -> None:
        for name in ("uplink_bps", "edge_load", "rtt_s"):
            axis = getattr(self, name)
            if not axis or any(b <= a for a, b in itertools.pairwise(axis)) or axis[0] < 0:
                raise BadInput(f"grid: {name} = {axis}: must have increasing values from 0 on.")
        if self.uplink_bps[0] == 0 or self.edge_load[-1] > 1:
            raise BadInput("grid: uplink_bps must be above 0 and edge_load between 0 and 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCut:
    """A cut that the table chooses somewhere."""

    id: str
    edge_layers: tuple[str, ...]
    up: tuple[str, ...]
    up_bytes: int
    down_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTable:
    """The best cut by conditions; written as JSON by `edge_deploy.core.serde.write_json`.

    Attributes:
        rule: How to look a cut up.
        fixed: Conditions that the grid does not vary. `downlink_bps` 0 stands for: as fast as the uplink.
        choice: Index in `cuts` by point, uplink first and round trip last; -1 where nothing is feasible.
        latency_s: Of the chosen cut; -1 where nothing is feasible.
        without_link: Index in `cuts` for a link that is down, at the load of `base`, or -1.
    """

    artifact: str
    sha256: str
    edge: str
    cloud: str
    provenance: str
    codec: str
    objective: str
    rule: str
    uplink_bps: tuple[float, ...]
    edge_load: tuple[float, ...]
    rtt_s: tuple[float, ...]
    fixed: dict[str, float]
    cuts: tuple[TableCut, ...]
    choice: tuple[int, ...]
    latency_s: tuple[float, ...]
    without_link: int


def plan_table(problem: Problem, base: Conditions, grid: Grid) -> PlanTable:
    """The table of a problem.

    Cuts that are no prefixes are looked for at up to 17 uplinks and 5 loads of the grid; the round trip does not
    change which is cheapest.

    Args:
        base: For what the grid does not vary; a `downlink_bps` of 0 makes it as fast as the uplink.

    Raises:
        BadInput: A profile does not fit the model, or a constraint names an unknown layer.
        NoFeasiblePlan: No cut is feasible at any point.
    """
    prepared = prepare(problem, _candidates(problem, base, grid))
    points = grid_conditions(base, grid)
    best = _best(prepared, points).index
    if (best < 0).all():
        raise NoFeasiblePlan("no cut keeps the constraints at any point of the grid; loosen them or `plan` one point.")
    local = int(_best(prepared, as_arrays(dataclasses.replace(base, uplink_bps=0.0))).index[0])
    used = sorted({*best[best >= 0].tolist(), *([local] if local >= 0 else [])})
    place = {column: number for number, column in enumerate(used)} | {-1: -1}
    seconds = cost(prepared.table, points).total_s[np.arange(len(best)), best]
    return PlanTable(
        artifact=problem.edge.artifact,
        sha256=problem.edge.sha256,
        edge=problem.edge.device,
        cloud=problem.cloud.device,
        provenance=prepared.table.provenance,
        codec=problem.codec,
        objective=problem.objective.name,
        rule=RULE,
        uplink_bps=grid.uplink_bps,
        edge_load=grid.edge_load,
        rtt_s=grid.rtt_s,
        fixed={name: getattr(base, name) for name in CONDITION_FIELDS if name not in _AXES},
        cuts=tuple(_told(prepared, column) for column in used),
        choice=tuple(place[column] for column in best.tolist()),
        latency_s=tuple(np.where(best >= 0, seconds, -1.0).tolist()),
        without_link=place[local],
    )


def look_up(table: PlanTable, *, uplink_bps: float, edge_load: float, rtt_s: float) -> str | None:
    """The id of the cut to use, by the table's rule; None where no cut keeps the constraints."""
    link = int(np.searchsorted(table.uplink_bps, uplink_bps, side="right")) - 1
    if link < 0:
        return table.cuts[table.without_link].id if table.without_link >= 0 else None
    load = min(int(np.searchsorted(table.edge_load, edge_load)), len(table.edge_load) - 1)
    delay = min(int(np.searchsorted(table.rtt_s, rtt_s)), len(table.rtt_s) - 1)
    found = table.choice[(link * len(table.edge_load) + load) * len(table.rtt_s) + delay]
    return table.cuts[found].id if found >= 0 else None


def grid_conditions(base: Conditions, grid: Grid) -> dict[str, np.ndarray]:
    """Every point of the grid, uplink first and round trip last, as the cost function takes them."""
    axes = np.meshgrid(grid.uplink_bps, grid.edge_load, grid.rtt_s, indexing="ij")
    points = {name: axis.reshape(-1).astype(float) for name, axis in zip(_AXES, axes, strict=True)}
    fixed = {name: np.full(axes[0].size, getattr(base, name)) for name in CONDITION_FIELDS if name not in _AXES}
    if base.downlink_bps == 0:
        fixed["downlink_bps"] = points["uplink_bps"].copy()
    return points | fixed


def _best(prepared: Prepared, conditions: dict[str, np.ndarray]) -> BestCuts:
    return best_cuts(
        prepared.table,
        conditions,
        objective=prepared.problem.objective,
        max_latency_s=prepared.problem.constraints.max_latency_s,
        allowed=prepared.forbidden == 0.0,
    )


def _candidates(problem: Problem, base: Conditions, grid: Grid) -> tuple[Cut, ...]:
    found: dict[str, Cut] = {cut.id: cut for cut in legal_cuts(problem.graph)}
    if any(problem.exits.values()):
        return tuple(found.values())
    for uplink_bps in _spread(grid.uplink_bps, 17):
        for edge_load in _spread(grid.edge_load, 5 if len(problem.edge.cpu.at) > 1 else 1):
            now = dataclasses.replace(
                base,
                uplink_bps=uplink_bps,
                downlink_bps=base.downlink_bps or uplink_bps,
                edge_load=edge_load,
            )
            found.update((cut.id, cut) for cut in proposals(problem, now, solver="min-cut"))
    return tuple(found.values())


def _spread(axis: tuple[float, ...], most: int) -> list[float]:
    """At most so many values of the axis, its ends among them."""
    return [axis[round(i)] for i in np.linspace(0, len(axis) - 1, min(most, len(axis)))]


def _told(prepared: Prepared, column: int) -> TableCut:
    cut, table = prepared.cuts[column], prepared.table
    return TableCut(
        id=cut.id,
        edge_layers=cut.edge_layers,
        up=tuple(tensor.name for tensor in cut.up),
        up_bytes=int(table.up_bytes[column]),
        down_bytes=int(table.down_bytes[column]),
    )
