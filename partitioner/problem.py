"""A model between an edge and a cloud, and what is wanted: the input of every solver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import Cut
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.profile import ModelProfile
from partitioner.constraints import Constraints
from partitioner.objectives import Objective

__all__ = ["Problem", "Solver"]

_NO_LIMITS = Constraints()
_LATENCY = Objective()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Where to cut `graph`.

    Attributes:
        codec: Name of a codec of `runtimes.codecs`.
        exits: By layer name: share of requests that its output answers, see `partitioner.cut_table`.
        coded_bytes: By cut id: mean bytes of the boundary as this codec was measured to encode it; see
            `partitioner.cut_table.build_cut_table`.
    """

    graph: LayerGraph
    edge: ModelProfile
    cloud: ModelProfile
    codec: str = "raw"
    objective: Objective = _LATENCY
    constraints: Constraints = _NO_LIMITS
    exits: Mapping[str, float] = field(default_factory=dict)
    coded_bytes: Mapping[str, float] = field(default_factory=dict)


class Solver(Protocol):
    """What a module in `partitioner/solvers` offers; the planner weighs everything that is proposed alike."""

    def propose(self, problem: Problem, now: Conditions) -> tuple[Cut, ...]:
        """Legal cuts worth weighing under these conditions.

        Raises:
            Unsupported: The solver cannot treat this objective or model, and says which can.
        """
