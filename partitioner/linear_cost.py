"""Latency and energy as one matrix product: features of the conditions times features of the cuts.

Every part of a request is a number of the condition (a slowdown, seconds per byte, the round trip) times a number of
the cut, so n conditions x C cuts are (n, 5) @ (5, C). The slowest stage is no sum; it takes four outer products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS, Conditions
from edge_deploy.core.errors import BadInput
from edge_deploy.core.profile import Slowdown
from partitioner.cost import BITS_PER_BYTE
from partitioner.cut_table import CutTable
from partitioner.objectives import Objective

__all__ = ["LinearCost", "condition_features", "linear_cost", "moment_features"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearCost:
    """The cuts' side of the product.

    Attributes:
        parts: Shape (5, C): seconds on the idle edge, bits up, waits (1 when it crosses), seconds on the idle cloud,
            bits down; all averaged over early exits.
        weights: Shape (5, C): the parts times the weights of the objective's sum.
        stage_weight: Weight of the slowest stage, 0 when it does not count.
        needs_uplink: Shape (C,): inf while the uplink is down.
        needs_downlink: The same for the downlink.
    """

    parts: np.ndarray
    weights: np.ndarray
    stage_weight: float
    needs_uplink: np.ndarray
    needs_downlink: np.ndarray

    def score(self, features: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """What is minimised, of shape (n, C), for features of shape (n, 5); see `condition_features`."""
        total = np.matmul(features, self.weights, out=out)
        if self.stage_weight:
            stages = [np.multiply.outer(features[:, row], self.parts[row]) for row in (0, 1, 3, 4)]
            total += self.stage_weight * np.maximum.reduce(stages)
        return total


def linear_cost(table: CutTable, objective: Objective) -> LinearCost:
    """The cuts' side for one objective.

    Raises:
        BadInput: Energy is asked for and the edge's power is not known.
    """
    pays = np.where(table.crosses, 1.0 - table.exit_share, 0.0)
    parts = np.stack(
        [
            table.edge_s + table.encode_s * pays,
            BITS_PER_BYTE * table.up_bytes * pays,
            pays,
            (table.cloud_s + table.decode_s) * pays,
            BITS_PER_BYTE * table.down_bytes * pays,
        ]
    )
    watts = np.zeros(5)
    if objective.energy:
        power = table.power
        if power is None:
            raise BadInput(
                "objective: energy needs power figures: put [power] into the edge's device file and profile again."
            )
        watts = np.array([power.compute_w, power.send_w, power.wait_w, power.wait_w, power.receive_w])
    return LinearCost(
        parts=parts,
        weights=parts * (objective.latency + objective.energy * watts)[:, None],
        stage_weight=objective.throughput,
        needs_uplink=table.crosses,
        needs_downlink=table.crosses & (table.down_bytes > 0),
    )


def condition_features(
    table: CutTable, conditions: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The conditions' side, of shape (n, 5), and where the uplink and where the downlink is down, of shape (n,).

    Seconds per bit of a link that is down are 0 here: its cuts have to be excluded by the masks.
    """
    zero = np.zeros(1)
    given = {name: np.asarray(conditions.get(name, zero), dtype=float).reshape(-1) for name in CONDITION_FIELDS}
    up, down = given["uplink_bps"], given["downlink_bps"]
    with np.errstate(divide="ignore"):
        columns = (
            table.edge_cpu(given["edge_load"]) * table.edge_memory(given["edge_memory"]),
            np.where(up > 0, 1.0 / up, 0.0),
            given["rtt_s"] + given["cloud_queue_s"],
            table.cloud_cpu(given["cloud_load"]) * table.cloud_memory(given["cloud_memory"]),
            np.where(down > 0, 1.0 / down, 0.0),
        )
    features = np.stack(np.broadcast_arrays(*columns), axis=1)
    count = len(features)
    return features, np.broadcast_to(up <= 0, count), np.broadcast_to(down <= 0, count)


def moment_features(table: CutTable, now: Conditions) -> tuple[float, float, float, float, float]:
    """The conditions' side of one moment as plain numbers."""
    return (
        _factor(table.edge_cpu, now.edge_load) * _factor(table.edge_memory, now.edge_memory),
        1.0 / now.uplink_bps if now.uplink_bps > 0 else 0.0,
        now.rtt_s + now.cloud_queue_s,
        _factor(table.cloud_cpu, now.cloud_load) * _factor(table.cloud_memory, now.cloud_memory),
        1.0 / now.downlink_bps if now.downlink_bps > 0 else 0.0,
    )


def _factor(curve: Slowdown, at: float) -> float:
    # One knot needs no interpolation; a call into NumPy takes longer than the rest of a decision's features.
    return curve.factor[0] if len(curve.at) == 1 else float(curve(at))
