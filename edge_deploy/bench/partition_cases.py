"""Seeded models and devices for `make bench-partition`: sizes and shapes of graphs as real nets have them, no data."""

from __future__ import annotations

import numpy as np

from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.profile import ModelProfile, Power, Slowdown
from edge_deploy.core.tensor import TensorInfo
from partitioner.problem import Problem

__all__ = ["DAGS", "branched", "conditions", "problem"]

# Name: how far back a layer may read, and how many tensors it reads.
DAGS = {
    "chain": (1, (1,)),
    "short skips": (3, (1, 1, 2)),
    "long skips": (30, (1, 1, 2, 3)),
    "anything reads anything": (500, (1, 2, 3)),
}


def branched(layers: int, *, back: int, reads: tuple[int, ...], seed: int) -> LayerGraph:
    """A DAG whose every layer reads some of the tensors made by the last `back` layers."""
    rng = np.random.default_rng(seed)
    tensors = [TensorInfo(name="x", shape=(1, 150_528), dtype="int8")]
    found = []
    for number in range(layers):
        near = tensors[-back:]
        count = min(int(rng.choice(reads)), len(near))
        inputs = tuple(near[i].name for i in sorted(rng.choice(len(near), size=count, replace=False)))
        made = TensorInfo(name=f"t{number}", shape=(1, int(10 ** rng.uniform(3, 5.5))), dtype="int8")
        tensors.append(made)
        found.append(Layer(name=f"l{number}", op="CONV_2D", inputs=inputs, outputs=(made,), weight_bytes=1000))
    read = {name for layer in found for name in layer.inputs}
    outputs = tuple(tensor.name for tensor in tensors[1:] if tensor.name not in read)
    return LayerGraph(inputs=tuple(tensors[:1]), outputs=outputs, layers=tuple(found))


def problem(graph: LayerGraph, *, seed: int) -> Problem:
    """The graph between a device and a cloud that is about ten times as fast."""
    rng = np.random.default_rng(seed)
    power = Power(compute_w=2.0, send_w=1.0, receive_w=0.8, wait_w=0.1)
    slower = Slowdown(at=(0.0, 0.25, 0.5, 0.75, 1.0), factor=(1.0, 1.3, 1.7, 2.4, 3.6))
    edge = {layer.name: float(rng.uniform(1e-4, 1e-2)) for layer in graph.layers}
    cloud = {name: seconds * float(rng.uniform(0.05, 0.2)) for name, seconds in edge.items()}
    return Problem(
        graph=graph,
        edge=_profile("edge", edge, cpu=slower, power=power),
        cloud=_profile("cloud", cloud, cpu=slower, power=None),
    )


def conditions(count: int, *, seed: int) -> dict[str, np.ndarray]:
    """So many conditions of a link and two machines."""
    rng = np.random.default_rng(seed)
    return {
        "uplink_bps": 10 ** rng.uniform(5, 9, count),
        "downlink_bps": 10 ** rng.uniform(5, 9, count),
        "rtt_s": 10 ** rng.uniform(-3, -0.5, count),
        "edge_load": rng.uniform(0, 1, count),
        "cloud_load": rng.uniform(0, 1, count),
    }


def _profile(device: str, layer_s: dict[str, float], *, cpu: Slowdown, power: Power | None) -> ModelProfile:
    overhead_s = 1e-5
    return ModelProfile(
        artifact="bench",
        sha256="",
        device=device,
        kernels="none",
        provenance="estimated",
        source="seeded random numbers",
        layer_s=layer_s,
        overhead_s=overhead_s,
        whole_s=sum(layer_s.values()) + overhead_s,
        cpu=cpu,
        power=power,
    )
