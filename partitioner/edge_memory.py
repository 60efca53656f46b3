"""How much memory the edge half of a cut needs: its weights and the activations that are alive at once."""

from __future__ import annotations

from collections.abc import Mapping

from edge_deploy.core.cut import Cut, tensor_bytes
from edge_deploy.core.layer_graph import LayerGraph

__all__ = ["edge_memory"]


def edge_memory(graph: LayerGraph, cut: Cut, measured: Mapping[str, int] | None = None) -> int:
    """Bytes of the weights of the edge layers and of the peak of activations while they run in order.

    A tensor is alive from the layer that makes it until its last reader on the edge has run; what crosses, and what
    is an output of the model, stays alive to the end. With all-cloud only the inputs are held.

    Args:
        measured: By layer name: bytes beyond weights that running it was measured to need; replaces the count where
            it has every edge layer.
    """
    if not cut.edge_layers:
        return sum(tensor_bytes(tensor) for tensor in graph.inputs)
    edge = set(cut.edge_layers)
    layers = [layer for layer in graph.layers if layer.name in edge]
    weights = sum(layer.weight_bytes for layer in layers)
    if measured and edge <= set(measured):
        return weights + max(measured[name] for name in edge)
    last_use = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    kept = {tensor.name for tensor in cut.up} | set(graph.outputs)
    size = {tensor.name: tensor_bytes(tensor) for tensor in graph.inputs}
    alive = sum(size.values())
    peak = alive
    for index, layer in enumerate(layers):
        made = {tensor.name: tensor_bytes(tensor) for tensor in layer.outputs}
        size |= made
        alive += sum(made.values())
        peak = max(peak, alive)
        dead = {name for name in (*layer.inputs, *made) if last_use.get(name, index) == index and name not in kept}
        alive -= sum(size[name] for name in dead)
    return weights + peak
