"""The cut with the least mean latency on the training traces, and no other: what adapting has to beat."""

from __future__ import annotations

from edge_deploy.core.errors import BadInput
from partitioner.cut_table import CutTable
from partitioner.policies.fixed import Fixed
from partitioner.policy import Training, static_cut

__all__ = ["train"]


def train(table: CutTable, training: Training, name: str, argument: str) -> Fixed:
    """Choose the cut.

    Raises:
        BadInput: It takes no argument.
    """
    if argument:
        raise BadInput(f"policy {name}: static takes no argument; for a cut of your choice use fixed:{argument}.")
    return Fixed(name=name, table=table, setting=training.setting, first=static_cut(table, training))
