"""The best of all down-sets of a DAG by minimum cut, where what is minimised is a sum over layers and tensors.

Fixed costs (the overhead of a call, the round trip, the queue) are the same for every cut with two halves, so the
cheapest down-set without them, all-edge and all-cloud together hold the best. For the slowest stage, which is no sum,
cuts for several weights of the stages are proposed, as in the heavy-load method of DADS; that is a heuristic.
"""

from __future__ import annotations

import dataclasses
import math

from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import Cut, make_cut, tensor_bytes
from edge_deploy.core.errors import Unsupported
from partitioner.constraints import private_tensors
from partitioner.cost import BITS_PER_BYTE
from partitioner.cut_table import check_fits, codec_speed
from partitioner.edge_memory import edge_memory
from partitioner.flow_network import FlowNetwork, Prices, cheapest_edge_layers, flow_network
from partitioner.legal import reasons_against
from partitioner.problem import Problem
from runtimes.codecs import load_codec

__all__ = ["prices", "propose"]

# Weights of the edge's and the cloud's stage over the link's.
_STAGE_WEIGHTS = (0.125, 0.5, 1.0, 2.0, 8.0)
# Prices tried for each byte where a limit is broken.
_PENALTIES = 12


def propose(problem: Problem, now: Conditions) -> tuple[Cut, ...]:
    """All-cloud, all-edge, the cheapest down-set, and cheap ones within limits; see `partitioner.problem.Solver`.

    Where the cheapest down-set breaks a limit on edge memory or bytes, each byte gets a price that is raised and
    lowered (Lagrange), and what is cheapest then is proposed too: good cuts within the limit, not always the best.

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
        network = flow_network(
            problem.graph,
            load_codec(problem.codec),
            private=private_tensors(problem.constraints, problem.graph),
        )
        for price in _all_prices(problem, now):
            found.append(cheapest_edge_layers(network, price))
            found += _within_limits(problem, network, price, found[-1])
    cuts = {cut.id: cut for cut in (make_cut(problem.graph, edge) for edge in dict.fromkeys(found))}
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


def _within_limits(
    problem: Problem, network: FlowNetwork, price: Prices, cheapest: tuple[str, ...]
) -> list[tuple[str, ...]]:
    """Down-sets that are cheapest when what a limit is about costs something; none where no limit is broken."""
    graph, limits = problem.graph, problem.constraints
    codec = load_codec(problem.codec)
    held = {
        layer.name: layer.weight_bytes + sum(tensor_bytes(tensor) for tensor in layer.outputs) for layer in graph.layers
    }

    def holds(cut: Cut) -> float:
        return edge_memory(graph, cut, problem.edge.memory_bytes)

    def sends(cut: Cut) -> float:
        return codec.encoded_bytes(cut.up) + cut.down_bytes

    def dearer_memory(penalty: float) -> Prices:
        edge = {name: seconds + penalty * held[name] for name, seconds in price.edge.items()}
        return dataclasses.replace(price, edge=edge)

    def dearer_bytes(penalty: float) -> Prices:
        return dataclasses.replace(price, sent=price.sent + penalty, returned=price.returned + penalty)

    found: list[tuple[str, ...]] = []
    for limit, measure, dearer in (
        (limits.max_edge_bytes, holds, dearer_memory),
        (limits.max_bytes, sends, dearer_bytes),
    ):
        if limit is None or measure(make_cut(graph, cheapest)) <= limit:
            continue
        too_low, high_enough, penalty = 0.0, math.inf, price.sent
        for _ in range(_PENALTIES):
            found.append(cheapest_edge_layers(network, dearer(penalty)))
            if measure(make_cut(graph, found[-1])) > limit:
                too_low = penalty
            else:
                high_enough = penalty
            if math.isinf(high_enough):
                penalty = 16.0 * too_low
            else:
                penalty = math.sqrt(too_low * high_enough) if too_low else high_enough / 16.0
    return found
