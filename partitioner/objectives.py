"""What is minimised: latency, the slowest stage, energy, or a weighted sum of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput
from partitioner.cost import CostArrays

__all__ = ["OBJECTIVES", "Objective", "parse_objective", "score"]

OBJECTIVES = ("latency", "throughput", "energy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A sum that is minimised.

    Attributes:
        name: As the user wrote it.
        latency: Weight of the seconds of one request.
        throughput: Weight of the seconds of the slowest stage of a full pipeline.
        energy: Weight of the joules of the edge device.
    """

    name: str = "latency"
    latency: float = 1.0
    throughput: float = 0.0
    energy: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.latency, self.throughput, self.energy)
        if any(not np.isfinite(weight) or weight < 0 for weight in weights) or not any(weights):
            raise BadInput(f"objective {self.name}: weights must be finite, not negative, and not all 0.")


def parse_objective(text: str) -> Objective:
    """The objective of a name of `OBJECTIVES`, or of text such as "latency=1,energy=0.2" (per second, per joule).

    Raises:
        BadInput: Something else.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        if name not in OBJECTIVES or name in weights or ("," in text and not weight):
            _refuse(text)
        try:
            weights[name] = float(weight or 1.0)
        except ValueError:
            _refuse(text)
    return Objective(name=text, **({"latency": 0.0} | weights))


def _refuse(text: str) -> None:
    known = ", ".join(OBJECTIVES)
    raise BadInput(f'objective {text!r}: must be one of {known}, or weights such as "latency=1,energy=0.2".')


def score(costs: CostArrays, objective: Objective) -> np.ndarray:
    """What is minimised, of shape (n, C).

    Raises:
        BadInput: Energy is asked for and the edge's power is not known.
    """
    total = np.zeros(1)
    if objective.latency:
        total = total + objective.latency * costs.total_s
    if objective.throughput:
        total = total + objective.throughput * costs.slowest_stage_s
    if objective.energy:
        total = total + objective.energy * _known(costs.energy_j)
    if objective.energy and not objective.latency and not objective.throughput:
        # A link that is down takes no energy and gives no answer.
        total = np.where(np.isfinite(costs.total_s), total, np.inf)
    return np.asarray(total)


def _known(energy_j: np.ndarray | None) -> np.ndarray:
    if energy_j is None:
        raise BadInput(
            "objective: energy needs power figures: put [power] into the edge's device file and profile again."
        )
    return energy_j
