"""What a policy has to know about how its decisions are carried out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.cut import ALL_EDGE
from edge_deploy.core.errors import BadInput
from partitioner.cost import cost, slowdowns
from partitioner.cut_table import CutTable

__all__ = ["NO_FALLBACK", "Setting", "expected_s", "finish_on_edge_s", "queueing_s"]

NO_FALLBACK = math.inf
# Above this utilisation the mean wait of an endless queue says little about conditions that last for seconds.
MOST_BUSY = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How decisions are carried out, live as in simulations.

    Attributes:
        tick_s: Seconds between two decisions.
        cold_s: Seconds for which the edge is busy when it has to load the half of another cut.
        warm_s: The same for a half that is kept loaded.
        warm: Ids of the cuts that are kept loaded; None for all of them (warm standby).
        rate_hz: Requests a second that are expected: they queue for each other, and a switch delays those that come
            meanwhile; 0 to leave both out.
        fallback_after_s: A request without an answer that long after its half on the edge is finished on the edge;
            infinite where the model does not fit there.
        max_latency_s: A policy that moves the cut leaves one that is expected to take longer for one that is not,
            whatever its margins say; where every cut is, the fastest is left to it. Infinite for no limit.
    """

    tick_s: float = 1.0
    cold_s: float = 0.5
    warm_s: float = 0.001
    warm: tuple[str, ...] | None = None
    rate_hz: float = 0.0
    fallback_after_s: float = NO_FALLBACK
    max_latency_s: float = math.inf

    def __post_init__(self) -> None:
        problems = []
        for name in ("tick_s", "fallback_after_s", "max_latency_s"):
            if not getattr(self, name) > 0:
                problems.append(f"setting: {name} = {getattr(self, name)}: must be above 0.")
        for name in ("cold_s", "warm_s", "rate_hz"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                problems.append(f"setting: {name} = {getattr(self, name)}: must be finite and not negative.")
        if problems:
            raise BadInput(*problems)

    def switch_s(self, table: CutTable) -> np.ndarray:
        """Seconds for which the edge is busy when it goes over to each cut; shape (C,).

        Raises:
            BadInput: A cut that is to be kept warm is not in the table.
        """
        if self.warm is None:
            return np.full(len(table.cuts), self.warm_s)
        for cut in self.warm:
            table.index(cut)
        return np.array([self.warm_s if cut in self.warm else self.cold_s for cut in table.cuts])

    def switch_penalty_s(self, table: CutTable) -> np.ndarray:
        """Seconds of waiting, summed over requests, that going over to each cut causes; shape (C,).

        Requests that come while the edge is busy for d seconds wait d/2 on average: rate * d * d/2 in all.
        """
        busy = self.switch_s(table)
        return np.asarray(self.rate_hz * busy * busy / 2)


def finish_on_edge_s(table: CutTable) -> np.ndarray | None:
    """Idle seconds to finish each cut's request on the edge; None when the whole model is not among the cuts."""
    if ALL_EDGE not in table.cuts:
        return None
    return np.asarray(np.maximum(table.edge_s[table.cuts.index(ALL_EDGE)] - table.edge_s, 0.0))


def queueing_s(busy_s: np.ndarray, rate_hz: float) -> np.ndarray:
    """Mean wait in a FIFO queue with Poisson arrivals and a server that is busy for `busy_s` each time (M/D/1).

    Beyond 80 % utilisation it stays at twice the time of a request: overload mostly ends before the queue is endless.
    """
    busy = np.minimum(busy_s, 1e6)
    utilisation = np.minimum(rate_hz * busy, MOST_BUSY)
    return np.asarray(busy * utilisation / (2 * (1 - utilisation)))


def expected_s(table: CutTable, conditions: dict[str, np.ndarray], setting: Setting) -> np.ndarray:
    """Latency of every cut under every condition, with queues, and the local answer where the cloud is late.

    Returns:
        Shape (n, C); infinite where the link is down and there is no fallback.
    """
    costs = cost(table, conditions)
    on_edge = costs.edge_s + costs.encode_s
    total = costs.total_s
    if setting.rate_hz:
        total = total + queueing_s(on_edge, setting.rate_hz) + queueing_s(costs.uplink_s, setting.rate_hz)
    rest = finish_on_edge_s(table)
    if rest is None or math.isinf(setting.fallback_after_s):
        return total
    columns = {name: np.asarray(values, dtype=float).reshape(-1, 1) for name, values in conditions.items()}
    for name in ("edge_load", "edge_memory", "cloud_load", "cloud_memory"):
        columns.setdefault(name, np.zeros((1, 1)))
    local = on_edge + setting.fallback_after_s + slowdowns(table, columns)[0] * rest
    return np.asarray(np.where(total - on_edge > setting.fallback_after_s, local, total))
