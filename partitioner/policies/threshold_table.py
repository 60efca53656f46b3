"""Look the cut up in a table by uplink and edge load: what an app without a cost model can do.

Without an argument the table is learned: in every cell the cut that was best on average when this was measured on
the training traces; cells that were seen too rarely hold what the cost model says. With an argument it is read from the
file that `edge-deploy plan --table` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import read_json
from partitioner.cut_table import CutTable
from partitioner.decision_table import Axis, DecisionTable, decision_table, log_edges
from partitioner.policy import Policy, State, Training, static_cut

__all__ = ["ThresholdTable", "train"]

LOADS = (0.125, 0.375, 0.625, 0.875)
# Ticks that a cell needs before what happened in it counts more than the cost model.
ENOUGH = 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ThresholdTable(Policy):
    """Follows `decisions`; `index` is the index of each cell's cut."""

    decisions: DecisionTable
    index: np.ndarray

    def foresee(self, state: State, conditions: Mapping[str, np.ndarray]) -> tuple[State, np.ndarray]:
        """0 for the cut that the table says, 1 for the others: a table knows no latencies."""
        wanted = self.index[self.decisions.look_up(conditions)]
        rows = np.ones((len(wanted), len(self.table.cuts)))
        rows[np.arange(len(wanted)), wanted] = 0.0
        return state, rows

    def choose(self, state: State, now_s: float, best: int, row: np.ndarray) -> State:
        """What the table says."""
        return state if best == state.cut else State(cut=best, since_s=now_s)


def train(table: CutTable, training: Training, name: str, argument: str) -> ThresholdTable:
    """Read or learn the table.

    Raises:
        BadInput: The file is none, or names cuts that this model has not.
    """
    if argument:
        decisions = read_json(DecisionTable, Path(argument))
        unknown = sorted(set(decisions.cuts) - set(table.cuts))
        if unknown:
            raise BadInput(f"{argument}: made for {decisions.model}; this model has no cut {', '.join(unknown)}.")
    else:
        decisions = _learn(table, training)
    return ThresholdTable(
        name=name,
        table=table,
        setting=training.setting,
        first=static_cut(table, training),
        decisions=decisions,
        index=np.array([table.cuts.index(cut) for cut in decisions.cuts]),
    )


def _learn(table: CutTable, training: Training) -> DecisionTable:
    played = training.replay(table)
    uplink = np.concatenate([told["uplink_bps"] for told, _ in played]) if played else np.array([1e5, 1e8])
    positive = uplink[uplink > 0]
    low, high = np.quantile(positive, (0.005, 0.995)) if len(positive) else (1e5, 1e8)
    axes = (
        Axis(field="uplink_bps", edges=log_edges(max(low, 1e3), max(high, 2 * low, 2e3), per_decade=5)),
        Axis(field="edge_load", edges=LOADS),
    )
    others = {"downlink_bps": 10e6, "rtt_s": 0.05}
    if played:
        others = {
            name: float(np.median(np.concatenate([told[name] for told, _ in played])))
            for name in CONDITION_FIELDS
            if name not in ("uplink_bps", "edge_load")
        }
    by_model = decision_table(table, axes, model="", setting=training.setting, others=others)
    if not played:
        return by_model
    cells = np.concatenate([by_model.look_up(told) for told, _ in played])
    taken = np.concatenate([seconds for _, seconds in played])
    cuts = list(by_model.cuts)
    for cell, count in zip(*np.unique(cells, return_counts=True), strict=True):
        if count >= ENOUGH:
            cuts[cell] = table.cuts[int(taken[cells == cell].mean(axis=0).argmin())]
    return DecisionTable(model="", codec=table.codec, axes=axes, cuts=tuple(cuts))
