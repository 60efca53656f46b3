"""Always the same cut, named by the user: `fixed:ID`; `all-edge` and `all-cloud` are short for two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_deploy.core.errors import BadInput
from partitioner.cut_table import CutTable
from partitioner.policy import Policy, State, Training

__all__ = ["Fixed", "train"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fixed(Policy):
    """Stays at its first cut."""

    moves: ClassVar[bool] = False

    def foresee(self, state: State, looked: Mapping[str, np.ndarray]) -> tuple[State, np.ndarray]:
        """Nothing needs to be foreseen."""
        return state, np.zeros((len(looked["uplink_bps"]), 1))

    def choose(self, state: State, now_s: float, best: int, row: np.ndarray) -> State:
        """No change."""
        return state


def train(table: CutTable, training: Training, name: str, argument: str) -> Fixed:
    """The policy that stays at the cut `argument`.

    Raises:
        BadInput: The table has no such cut.
    """
    if not argument:
        raise BadInput("policy fixed: needs the id of a cut, e.g. fixed:all-edge.")
    return Fixed(name=name, table=table, setting=training.setting, first=table.index(argument))
