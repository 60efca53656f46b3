"""Seconds of one decision, and of a minimum cut against networkx.

`_s` is wall time, `_cpu_s` the time of this process: on a busy machine only the second says something.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np

from edge_deploy.bench.partition_cases import DAGS, branched, problem
from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import tensor_bytes
from partitioner.candidates import legal_cuts
from partitioner.decision import decide, prepare
from partitioner.flow_network import Prices, cheapest_edge_layers, flow_network
from partitioner.problem import Problem
from partitioner.solvers.min_cut import prices
from runtimes.codecs import load_codec

__all__ = ["measure_decision", "measure_min_cut"]

ROUNDS = 15
CALLS = 200


def measure_decision(layers: int = 100) -> dict[str, float]:
    """From conditions to a `PartitionPlan`, with everything that does not depend on conditions made beforehand."""
    net = problem(branched(layers, back=4, reads=(1, 2), seed=0), seed=1)
    start = time.perf_counter()
    prepared = prepare(net, legal_cuts(net.graph))
    prepared_s = time.perf_counter() - start
    rng = np.random.default_rng(3)
    moments = [
        Conditions(uplink_bps=float(rate), downlink_bps=float(rate), rtt_s=0.03, edge_load=float(load))
        for rate, load in zip(10 ** rng.uniform(5, 9, CALLS), rng.uniform(0, 1, CALLS), strict=True)
    ]
    seconds, busy = [], []
    for _ in range(ROUNDS):
        start, cpu = time.perf_counter(), time.process_time()
        for now in moments:
            decide(prepared, now)
        seconds.append((time.perf_counter() - start) / CALLS)
        busy.append((time.process_time() - cpu) / CALLS)
    return {
        "layers": layers,
        "cuts": len(prepared.cuts),
        "decision_s": float(np.median(seconds)),
        "decision_cpu_s": float(np.median(busy)),
        "once_s": prepared_s,
    }


def measure_min_cut(layers: int = 500) -> dict[str, dict[str, float]]:
    """The cheapest down-set of graphs of several shapes and links; the network of the model is made once."""
    found = {}
    for (shape, (back, reads)), uplink in itertools.product(DAGS.items(), (2e6, 2e7, 2e8)):
        net = problem(branched(layers, back=back, reads=reads, seed=4), seed=5)
        now = Conditions(uplink_bps=uplink, downlink_bps=uplink, rtt_s=0.03)
        start = time.perf_counter()
        network = flow_network(net.graph, load_codec(net.codec))
        once_s = time.perf_counter() - start
        ours, busy, theirs = [], [], []
        for number in range(ROUNDS):
            start, cpu = time.perf_counter(), time.process_time()
            edge = cheapest_edge_layers(network, prices(net, now))
            ours.append(time.perf_counter() - start)
            busy.append(time.process_time() - cpu)
            if number < 3:
                their_s, value = _networkx(net, prices(net, now))
                theirs.append(their_s)
        _check(_price(net, prices(net, now), edge), value)
        found[f"{shape}, {uplink / 1e6:g} Mbit/s"] = {
            "min_cut_s": float(np.median(ours)),
            "min_cut_cpu_s": float(np.median(busy)),
            "once_s": once_s,
            "networkx_cpu_s": float(np.median(theirs)),
            "times_faster": float(np.median(theirs) / np.median(busy)),
            "edge_layers": len(edge),
        }
    return found


def _networkx(net: Problem, price: Prices) -> tuple[float, float]:
    """CPU seconds and value of the same cut by the faster of two algorithms of networkx, without making its graph."""
    import networkx
    from networkx.algorithms.flow import boykov_kolmogorov, preflow_push

    graph = _their_graph(networkx, net, price)
    seconds = []
    for algorithm in (preflow_push, boykov_kolmogorov):
        start = time.process_time()
        value, _ = networkx.minimum_cut(graph, "edge", "cloud", flow_func=algorithm)
        seconds.append(time.process_time() - start)
    return min(seconds), float(value)


def _their_graph(networkx: Any, net: Problem, price: Prices) -> Any:
    graph = networkx.DiGraph()
    outputs = set(net.graph.outputs)
    makers = {tensor.name: layer.name for layer in net.graph.layers for tensor in layer.outputs}
    sizes = {tensor.name: tensor_bytes(tensor) for layer in net.graph.layers for tensor in layer.outputs}
    sizes |= {tensor.name: tensor_bytes(tensor) for tensor in net.graph.inputs}
    for layer in net.graph.layers:
        back = sum(sizes[tensor.name] for tensor in layer.outputs if tensor.name in outputs)
        graph.add_edge("edge", layer.name, capacity=price.cloud[layer.name] + back * price.returned)
        graph.add_edge(layer.name, "cloud", capacity=price.edge[layer.name])
        for name in layer.inputs:
            graph.add_edge(makers.get(name, "edge"), ("sent", name), capacity=sizes[name] * price.sent)
            graph.add_edge(("sent", name), layer.name)
            if name in makers:
                graph.add_edge(layer.name, makers[name])
    return graph


def _price(net: Problem, price: Prices, edge_layers: tuple[str, ...]) -> float:
    from edge_deploy.core.cut import make_cut

    cut, edge = make_cut(net.graph, edge_layers), set(edge_layers)
    layers = sum(
        price.edge[layer.name] if layer.name in edge else price.cloud[layer.name] for layer in net.graph.layers
    )
    return layers + cut.up_bytes * price.sent + cut.down_bytes * price.returned


def _check(ours: float, theirs: float) -> None:
    if abs(ours - theirs) > 1e-9 * max(1.0, theirs):
        raise AssertionError(f"our cut costs {ours}, that of networkx {theirs}")
