"""What a request costs: one vectorised function over conditions x cuts. Pure NumPy, seconds, bytes and joules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS, Conditions
from edge_deploy.core.errors import BadInput
from edge_deploy.core.partition_plan import CostParts
from edge_deploy.core.profile import Power
from partitioner.cut_table import CutTable

__all__ = ["CostArrays", "as_arrays", "cost", "cost_parts", "slowdowns"]

_NEEDED = ("uplink_bps", "downlink_bps", "rtt_s")
BITS_PER_BYTE = 8.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostArrays:
    """Seconds of each part of a request, averaged over early exits; each of shape (n, C): conditions x cuts.

    Attributes:
        rtt_s: Paid once by a request that crosses.
        cloud_s: With decoding.
        power: Of the edge device; None where unknown.
    """

    edge_s: np.ndarray
    encode_s: np.ndarray
    uplink_s: np.ndarray
    rtt_s: np.ndarray
    queue_s: np.ndarray
    cloud_s: np.ndarray
    downlink_s: np.ndarray
    power: Power | None = None

    @property
    def total_s(self) -> np.ndarray:
        """Latency of one request; inf where it has to cross a link that is down."""
        return np.asarray(
            self.edge_s + self.encode_s + self.uplink_s + self.rtt_s + self.queue_s + self.cloud_s + self.downlink_s
        )

    @property
    def slowest_stage_s(self) -> np.ndarray:
        """Seconds between two requests of a full pipeline: edge, uplink, cloud and downlink work at the same time."""
        stages = (self.edge_s + self.encode_s, self.uplink_s, self.cloud_s, self.downlink_s)
        return np.asarray(np.maximum.reduce(stages))

    @property
    def energy_j(self) -> np.ndarray | None:
        """Of the edge device, above idle; None without power figures."""
        if self.power is None:
            return None
        waits = self.rtt_s + self.queue_s + self.cloud_s
        return np.asarray(
            self.power.compute_w * (self.edge_s + self.encode_s)
            + self.power.send_w * self.uplink_s
            + self.power.receive_w * self.downlink_s
            + (self.power.wait_w * waits if self.power.wait_w else 0.0)
        )


def cost(table: CutTable, conditions: Mapping[str, np.ndarray]) -> CostArrays:
    """Cost of every cut under every condition.

    Args:
        conditions: By field of `Conditions`, each of shape (n,) or a number; fields left out are 0, the rates and the
            round trip are needed. `Trace.values` fits.

    Returns:
        Arrays of shape (n, C).

    Raises:
        BadInput: A field is unknown or a needed one missing.
    """
    given = _columns(conditions)
    on_edge, on_cloud = slowdowns(table, given)
    pays = np.where(table.crosses, 1.0 - table.exit_share, 0.0)
    return CostArrays(
        edge_s=on_edge * table.edge_s,
        encode_s=on_edge * (table.encode_s * pays),
        uplink_s=_transfer(table.up_bytes, given["uplink_bps"], pays, table.crosses),
        rtt_s=given["rtt_s"] * pays,
        queue_s=given["cloud_queue_s"] * pays,
        cloud_s=on_cloud * ((table.cloud_s + table.decode_s) * pays),
        downlink_s=_transfer(table.down_bytes, given["downlink_bps"], pays, table.crosses & (table.down_bytes > 0)),
        power=table.power,
    )


def slowdowns(table: CutTable, conditions: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Factors on the times of edge and cloud; the shape of the conditions."""
    edge = table.edge_cpu(conditions["edge_load"]) * table.edge_memory(conditions["edge_memory"])
    cloud = table.cloud_cpu(conditions["cloud_load"]) * table.cloud_memory(conditions["cloud_memory"])
    return edge, cloud


def as_arrays(conditions: Conditions) -> dict[str, np.ndarray]:
    """One moment as arrays of shape (1,)."""
    return {name: np.array([getattr(conditions, name)], dtype=float) for name in CONDITION_FIELDS}


def cost_parts(table: CutTable, costs: CostArrays, row: int, column: int) -> CostParts:
    """One entry of the arrays as a value."""
    energy = costs.energy_j
    return CostParts(
        edge_s=float(costs.edge_s[row, column]),
        encode_s=float(costs.encode_s[row, column]),
        uplink_s=float(costs.uplink_s[row, column]),
        rtt_s=float(costs.rtt_s[row, column]),
        queue_s=float(costs.queue_s[row, column]),
        cloud_s=float(costs.cloud_s[row, column]),
        downlink_s=float(costs.downlink_s[row, column]),
        up_bytes=int(table.up_bytes[column]),
        down_bytes=int(table.down_bytes[column]),
        edge_bytes=int(table.edge_bytes[column]),
        energy_j=None if energy is None else float(energy[row, column]),
    )


def _columns(conditions: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    unknown = sorted(set(conditions) - set(CONDITION_FIELDS))
    missing = [name for name in _NEEDED if name not in conditions]
    if unknown or missing:
        known = ", ".join(CONDITION_FIELDS)
        raise BadInput(f"conditions: unknown {unknown}, missing {missing}; fields are {known}.")
    zero = np.zeros((1, 1))
    given = {name: np.asarray(conditions[name], dtype=float).reshape(-1, 1) for name in conditions}
    count = max(column.shape[0] for column in given.values())
    return {name: np.broadcast_to(given.get(name, zero), (count, 1)) for name in CONDITION_FIELDS}


def _transfer(size: np.ndarray, rate_bps: np.ndarray, pays: np.ndarray, uses: np.ndarray) -> np.ndarray:
    """Seconds on the wire; inf where the link is used and down."""
    with np.errstate(divide="ignore"):
        seconds_per_byte = BITS_PER_BYTE / rate_bps
    up = np.isfinite(seconds_per_byte)
    seconds = np.where(up, seconds_per_byte, 0.0) * (size * pays)
    if not up.all():
        # A cut that sends nothing still needs the link for its request.
        seconds = np.where(~up & uses, np.inf, seconds)
    return np.asarray(seconds)
