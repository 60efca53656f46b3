"""Device, edge and cloud: two nested cuts, weighed for all pairs at once.

The device runs the inner cut, the middle tier what the outer cut adds, the cloud the rest. Both cuts may be all-cloud
or all-edge, so two tiers and one are among the pairs. What the cloud needs of the device passes through the middle
tier, unless nothing runs there and a direct link is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.partition_plan import CostParts, PartitionPlan
from edge_deploy.core.profile import ModelProfile, Power
from edge_deploy.core.units import format_seconds
from partitioner.constraints import check_layers, no_plan, ruled_out, too_slow
from partitioner.cost import BITS_PER_BYTE
from partitioner.cut_table import CutTable, build_cut_table, weakest
from partitioner.objectives import Objective
from partitioner.problem import Problem

__all__ = ["Links", "PairCosts", "Tiers", "pair_costs", "plan_three_tiers", "three_tiers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The conditions between the tiers.

    Attributes:
        near: Between device and middle: `edge_load` is the device's, `cloud_load` and the queue the middle's.
        far: Between middle and cloud: `cloud_load` and the queue are the cloud's, `edge_load` counts nothing.
        direct: Between device and cloud, taken where nothing runs in the middle; None: through the middle tier.
    """

    near: Conditions
    far: Conditions
    direct: Conditions | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tiers:
    """C cuts between three profiles.

    Attributes:
        near: The cuts between device and middle; `far`: between middle and cloud.
        middle_s: Shape (C, C), inner by outer cut: idle seconds of what lies between, with the overhead of a call.
        nested: Shape (C, C): whether the inner cut is part of the outer one.
        middle_is_empty: Shape (C, C): both cuts are the same.
    """

    near: CutTable
    far: CutTable
    middle_s: np.ndarray
    nested: np.ndarray
    middle_is_empty: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairCosts:
    """Seconds of each part, shape (C, C): inner cut by outer cut; inf where they are not nested or a link is down.

    Attributes:
        up_s: On the device's own link, `down_s` likewise; `far_s`: on the link behind the middle, both ways.
        rtt_s: Of all links that are used; `queue_s`: of all tiers that serve.
        power: Of the device; None where unknown.
    """

    device_s: np.ndarray
    up_s: np.ndarray
    middle_s: np.ndarray
    far_s: np.ndarray
    cloud_s: np.ndarray
    down_s: np.ndarray
    rtt_s: np.ndarray
    queue_s: np.ndarray
    power: Power | None = None

    @property
    def total_s(self) -> np.ndarray:
        """Latency of one request."""
        moving = self.up_s + self.far_s + self.down_s + self.rtt_s + self.queue_s
        return np.asarray(self.device_s + self.middle_s + self.cloud_s + moving)

    @property
    def slowest_stage_s(self) -> np.ndarray:
        """Seconds between two requests of a full pipeline."""
        stages = (self.device_s, self.up_s, self.middle_s, self.far_s, self.cloud_s, self.down_s)
        return np.asarray(np.maximum.reduce(stages))

    @property
    def energy_j(self) -> np.ndarray | None:
        """Of the device, above idle; None without power figures."""
        if self.power is None:
            return None
        waits = self.middle_s + self.far_s + self.cloud_s + self.rtt_s + self.queue_s
        return np.asarray(
            self.power.compute_w * self.device_s
            + self.power.send_w * self.up_s
            + self.power.receive_w * self.down_s
            + (self.power.wait_w * waits if self.power.wait_w else 0.0)
        )


def three_tiers(problem: Problem, cuts: Sequence[Cut], middle: ModelProfile) -> Tiers:
    """The cuts of a problem between its edge (the device), `middle` and its cloud.

    Raises:
        BadInput: A profile does not fit the model.
    """
    graph, codec = problem.graph, problem.codec
    near = build_cut_table(graph, cuts, edge=problem.edge, cloud=middle, codec=codec, coded_bytes=problem.coded_bytes)
    far = build_cut_table(graph, cuts, edge=middle, cloud=problem.cloud, codec=codec, coded_bytes=problem.coded_bytes)
    names = [layer.name for layer in graph.layers]
    on_edge = np.array([[name in edge for name in names] for edge in (frozenset(cut.edge_layers) for cut in cuts)])
    times = np.array([middle.layer_s[name] for name in names])
    nested = ~(on_edge[:, None, :] & ~on_edge[None, :, :]).any(axis=2)
    between = (on_edge @ times)[None, :] - (on_edge @ times)[:, None]
    same = np.eye(len(cuts), dtype=bool)
    return Tiers(
        near=near,
        far=far,
        middle_s=np.where(nested & ~same, np.maximum(between, 0.0) + middle.overhead_s, 0.0),
        nested=nested,
        middle_is_empty=same,
    )


def pair_costs(tiers: Tiers, links: Links) -> PairCosts:
    """Cost of every pair of nested cuts; the round trip is paid once for each link that is used."""
    near, far = tiers.near, tiers.far
    shape = tiers.nested.shape
    leaves, goes_on, serves = near.crosses[:, None], far.crosses[None, :], ~tiers.middle_is_empty
    # With a direct link, a pair with nothing in the middle does not touch the other two.
    skips = ~serves & goes_on if links.direct is not None else np.zeros(shape, dtype=bool)
    direct = links.direct or links.near
    device_slower = float(near.edge_cpu(links.near.edge_load) * near.edge_memory(links.near.edge_memory))
    middle_slower = float(near.cloud_cpu(links.near.cloud_load) * near.cloud_memory(links.near.cloud_memory))
    cloud_slower = float(far.cloud_cpu(links.far.cloud_load) * far.cloud_memory(links.far.cloud_memory))
    # What passes through the middle tier unused is neither decoded nor encoded there.
    middle = tiers.middle_s + np.where(serves, near.decode_s[:, None] + far.encode_s[None, :], 0.0)
    device = np.broadcast_to((device_slower * (near.edge_s + near.encode_s))[:, None], shape)
    far_s = _up(far, links.far) + _down(far, links.far)
    rtt_s = np.where(leaves, links.near.rtt_s, 0.0) + np.where(goes_on, links.far.rtt_s, 0.0)
    return PairCosts(
        device_s=np.where(tiers.nested, device, np.inf),
        up_s=np.where(skips, _up(near, direct)[:, None], _up(near, links.near)[:, None]),
        middle_s=middle_slower * middle,
        far_s=np.where(skips, 0.0, far_s[None, :]),
        cloud_s=np.broadcast_to(np.where(goes_on, cloud_slower * (far.cloud_s + far.decode_s), 0.0), shape),
        down_s=np.where(skips, _down(near, direct)[:, None], _down(near, links.near)[:, None]),
        rtt_s=np.where(skips, direct.rtt_s, rtt_s),
        queue_s=np.where(serves, links.near.cloud_queue_s, 0.0) + np.where(goes_on, links.far.cloud_queue_s, 0.0),
        power=near.power,
    )


def plan_three_tiers(
    problem: Problem, cuts: Sequence[Cut], middle: ModelProfile, links: Links
) -> tuple[PartitionPlan, PairCosts]:
    """The best pair of nested cuts.

    Limits on memory and layers are the device's; `max_bytes` is that of its link.

    Returns:
        The plan, whose `cuts` are the device's and then the middle's, and the cost of all pairs.

    Raises:
        BadInput: A profile does not fit the model, or a constraint names an unknown layer.
        NoFeasiblePlan: Says which constraint rules out which pairs.
    """
    check_layers(problem.constraints, problem.graph)
    tiers = three_tiers(problem, cuts, middle)
    costs = pair_costs(tiers, links)
    refused = ruled_out(problem.constraints, tiers.near, cuts, problem.graph)
    total = costs.total_s
    scores = _score(costs, problem.objective)
    scores[[bool(reason) for reason in refused], :] = np.inf
    limit = problem.constraints.max_latency_s
    if limit is not None:
        scores = np.where(total <= limit, scores, np.inf)
    inner, outer = (int(place) for place in np.unravel_index(int(scores.argmin()), scores.shape))
    if not math.isfinite(scores[inner, outer]):
        fastest = total.min(axis=1)
        reasons = [reason or too_slow(float(s), limit) for reason, s in zip(refused, fastest, strict=True)]
        raise no_plan(reasons, tiers.near.cuts)
    ids = (tiers.near.cuts[inner], tiers.near.cuts[outer])
    pairs = int(tiers.nested.sum())
    plan = PartitionPlan(
        cuts=ids,
        codec=problem.codec,
        objective=problem.objective.name,
        conditions=links.near,
        cost=_parts(tiers, costs, inner, outer),
        why=f"{ids[0]} then {ids[1]} takes {format_seconds(float(total[inner, outer]))}; "
        f"least {problem.objective.name} of {pairs} nested pairs",
        edge_layers=(cuts[inner].edge_layers, cuts[outer].edge_layers),
        provenance=weakest(problem.edge.provenance, middle.provenance, problem.cloud.provenance),
    )
    return plan, costs


def _up(table: CutTable, link: Conditions) -> np.ndarray:
    return np.where(table.crosses, _seconds(table.up_bytes, link.uplink_bps), 0.0)


def _down(table: CutTable, link: Conditions) -> np.ndarray:
    return np.where(table.crosses & (table.down_bytes > 0), _seconds(table.down_bytes, link.downlink_bps), 0.0)


def _seconds(size: np.ndarray, rate_bps: float) -> np.ndarray:
    return size * BITS_PER_BYTE / rate_bps if rate_bps > 0 else np.full(len(size), np.inf)


def _score(costs: PairCosts, objective: Objective) -> np.ndarray:
    total = np.zeros(costs.device_s.shape)
    if objective.latency:
        total = total + objective.latency * costs.total_s
    if objective.throughput:
        total = total + objective.throughput * costs.slowest_stage_s
    if objective.energy:
        if costs.energy_j is None:
            raise BadInput(
                "objective: energy needs power figures: put [power] into the device's file and profile again."
            )
        total = total + objective.energy * costs.energy_j
    return np.where(np.isfinite(costs.total_s), total, np.inf)


def _parts(tiers: Tiers, costs: PairCosts, inner: int, outer: int) -> CostParts:
    near, far, at = tiers.near, tiers.far, (inner, outer)
    through = 0 if costs.far_s[at] == 0 else 1
    energy = costs.energy_j
    device_idle = float(near.edge_s[inner] + near.encode_s[inner])
    encodes = float(near.encode_s[inner]) / device_idle if device_idle > 0 else 0.0
    return CostParts(
        edge_s=float(costs.device_s[at]) * (1.0 - encodes),
        encode_s=float(costs.device_s[at]) * encodes,
        uplink_s=float(costs.up_s[at] + costs.far_s[at]),
        rtt_s=float(costs.rtt_s[at]),
        queue_s=float(costs.queue_s[at]),
        cloud_s=float(costs.cloud_s[at]),
        downlink_s=float(costs.down_s[at]),
        up_bytes=int(near.up_bytes[inner] + through * far.up_bytes[outer]),
        down_bytes=int(near.down_bytes[inner] + through * far.down_bytes[outer]),
        edge_bytes=int(near.edge_bytes[inner]),
        energy_j=None if energy is None else float(energy[at]),
        middle_s=float(costs.middle_s[at]),
    )
