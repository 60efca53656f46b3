"""Where to cut under given conditions, what that costs part by part, and what else was considered."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_deploy.core.benchmark import Provenance
from edge_deploy.core.conditions import Conditions

__all__ = ["CostParts", "PartitionPlan", "Considered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostParts:
    """Where the time of one request goes, in seconds, and the bytes and joules it takes.

    Attributes:
        rtt_s: Paid once a request, when anything crosses; with three tiers once for each link that is used.
        middle_s: On the middle tier, where there is one; links and bytes are then those of both links together.
        energy_j: Of the edge device; None without power figures.
    """

    edge_s: float
    encode_s: float
    uplink_s: float
    rtt_s: float
    queue_s: float
    cloud_s: float
    downlink_s: float
    up_bytes: int
    down_bytes: int
    edge_bytes: int
    energy_j: float | None = None
    middle_s: float = 0.0

    @property
    def total_s(self) -> float:
        """The latency of one request."""
        on_the_way = self.uplink_s + self.rtt_s + self.queue_s + self.downlink_s
        return self.edge_s + self.encode_s + on_the_way + self.middle_s + self.cloud_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """A cut that was weighed.

    Attributes:
        refused: Why it may not be chosen (the constraint it breaks); empty when it may.
    """

    cut: str
    codec: str
    cost: CostParts
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionPlan:
    """A decision.

    Attributes:
        cuts: Ids, one per boundary: one for edge and cloud, two for device, edge and cloud.
        edge_layers: Of each cut: the layers before it, in order.
        codec: How the boundary is encoded.
        objective: What was minimised, e.g. "latency".
        cost: Of the chosen cut under `conditions`.
        why: One sentence for people.
        considered: All candidates, best first; may be cut short by the caller.
        provenance: The weakest of the profiles': one estimate makes the plan estimated.
        warnings: E.g. conditions outside the measured sweep.
    """

    cuts: tuple[str, ...]
    codec: str
    objective: str
    conditions: Conditions
    cost: CostParts
    why: str
    provenance: Provenance
    considered: tuple[Considered, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    edge_layers: tuple[tuple[str, ...], ...] = ()
