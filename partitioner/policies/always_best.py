"""The cut that the cost model likes best under what was just measured, at every tick, whatever a switch costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from partitioner.cut_table import CutTable
from partitioner.policy import Policy, State, Training, static_cut

__all__ = ["AlwaysBest", "train"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlwaysBest(Policy):
    """Believes the last measurement."""

    def choose(self, state: State, now_s: float, best: int, row: np.ndarray) -> State:
        """The best one."""
        return state if best == state.cut else State(cut=best, since_s=now_s, memory=state.memory)


def train(table: CutTable, training: Training, name: str, argument: str) -> AlwaysBest:
    """Nothing is learned but the cut to start with."""
    return AlwaysBest(name=name, table=table, setting=training.setting, first=static_cut(table, training))
