"""The best of all down-sets of a DAG by minimum cut, where what is minimised is a sum over layers and tensors.

Fixed costs (the overhead of a call, the round trip, the queue) are the same for every cut with two halves, so the
cheapest down-set without them, all-edge and all-cloud together hold the best. For the slowest stage, which is no sum,
cuts for several weights of the stages are proposed, as in the heavy-load method of DADS; that is a heuristic.
"""

from __future__ import annotations

import math

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import Cut, make_cut
from edge_deploy.core.errors import Unsupported
from partitioner.cost import BITS_PER_BYTE
from partitioner.cut_table import check_fits, codec_speed
from partitioner.flow_network import Prices, cheapest_edge_layers, flow_network
from partitioner.legal import reasons_against
from partitioner.problem import Problem
from runtimes.codecs import load_codec

__all__ = ["prices", "propose"]

# Weights of the edge's and the cloud's stage over the link's.
_STAGE_WEIGHTS = (0.125, 0.5, 1.0, 2.0, 8.0)


def propose(problem: Problem, now: Conditions) -> tuple[Cut, ...]:
    """All-cloud, all-edge and the cheapest down-set; see `partitioner.problem.Solver`.

    Limits on latency, memory and bytes are not part of the search: a cut that breaks them is proposed all the same, and
    the planner rules it out.

    Raises:
        BadInput: A profile does not fit the model.
        Unsupported: The model has early exits, whose crossing costs are no sum.
    """
    if any(problem.exits.values()):
        raise Unsupported("min-cut: early exits make the cost no sum over layers; use the solver `enumerate`.")
    check_fits(problem.edge, problem.graph)
    check_fits(problem.cloud, problem.graph)
    names = tuple(layer.name for layer in problem.graph.layers)
    found = [(), names]
    if now.uplink_bps > 0 and now.downlink_bps > 0:
        network = flow_network(problem.graph, load_codec(problem.codec))
        found += [cheapest_edge_layers(network, price) for price in _all_prices(problem, now)]
    cuts = {cut.id: cut for cut in (make_cut(problem.graph, edge) for edge in found)}
    return tuple(cut for cut in cuts.values() if not reasons_against(problem.graph, cut))


def prices(problem: Problem, now: Conditions, *, edge_weight: float = 1.0, cloud_weight: float = 1.0) -> Prices:
    """What layers and bytes cost under `now`; seconds, joules or their weighted sum."""
    objective, power = problem.objective, problem.edge.power
    joule = objective.energy if power is not None else 0.0
    second = objective.latency or (0.0 if joule else 1.0)
    compute, send, receive, wait = (
        (0.0, 0.0, 0.0, 0.0) if power is None else (power.compute_w, power.send_w, power.receive_w, power.wait_w)
    )
    on_edge = float(problem.edge.cpu(now.edge_load) * problem.edge.memory(now.edge_memory))
    on_cloud = float(problem.cloud.cpu(now.cloud_load) * problem.cloud.memory(now.cloud_memory))
    edge_second = on_edge * edge_weight * (second + joule * compute)
    cloud_second = on_cloud * cloud_weight * (second + joule * wait)
    encode_s, decode_s = codec_speed(problem.edge, problem.codec)[0], codec_speed(problem.cloud, problem.codec)[1]
    must, must_not = problem.constraints.keep_on_edge, problem.constraints.keep_off_edge
    return Prices(
        edge={name: s * edge_second for name, s in problem.edge.layer_s.items()} | dict.fromkeys(must_not, math.inf),
        cloud={name: s * cloud_second for name, s in problem.cloud.layer_s.items()} | dict.fromkeys(must, math.inf),
        sent=BITS_PER_BYTE / now.uplink_bps * (second + joule * send),
        uncoded=encode_s * edge_second + decode_s * cloud_second,
        returned=BITS_PER_BYTE / now.downlink_bps * (second + joule * receive),
    )


def _all_prices(problem: Problem, now: Conditions) -> list[Prices]:
    if not problem.objective.throughput:
        return [prices(problem, now)]
    return [
        prices(problem, now, edge_weight=edge, cloud_weight=cloud)
        for edge in _STAGE_WEIGHTS
        for cloud in _STAGE_WEIGHTS
    ]
