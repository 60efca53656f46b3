"""How much memory the edge half of a cut needs: its weights and the activations that are alive at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_deploy.core.cut import Cut, tensor_bytes
from edge_deploy.core.layer_graph import LayerGraph

__all__ = ["edge_memories", "edge_memory"]


def edge_memories(graph: LayerGraph, cuts: Sequence[Cut], measured: Mapping[str, int] | None = None) -> np.ndarray:
    """`edge_memory` of every cut; shape (C,). All prefixes among them together take one walk over the layers."""
    names = tuple(layer.name for layer in graph.layers)
    of_prefix: np.ndarray | None = None
    found = np.empty(len(cuts), dtype=np.int64)
    for row, cut in enumerate(cuts):
        count = len(cut.edge_layers)
        if cut.edge_layers == names[:count]:
            of_prefix = _of_prefixes(graph, measured or {}) if of_prefix is None else of_prefix
            found[row] = of_prefix[count]
        else:
            found[row] = edge_memory(graph, cut, measured)
    return found


def _of_prefixes(graph: LayerGraph, measured: Mapping[str, int]) -> np.ndarray:
    """By number of edge layers: weights and peak.

    A tensor that depends on the inputs lives as long for every prefix that has its maker: either its last reader is
    there too, or it crosses and is kept. What is made of weights alone never crosses: it lives to its last reader so
    far, so that each further reader makes it live longer, and the peak grows.
    """
    constant = graph.constant_layers
    last_use = {name: place for place, layer in enumerate(graph.layers) for name in layer.inputs}
    size = {tensor.name: tensor_bytes(tensor) for tensor in graph.inputs}
    alive = sum(size.values())
    found = np.empty(len(graph.layers) + 1, dtype=np.int64)
    found[0] = alive
    while_running = np.zeros(len(graph.layers), dtype=np.int64)
    lives_to: dict[str, int] = {}
    weights, peak, most, all_measured = 0, alive, 0, bool(measured)
    for place, layer in enumerate(graph.layers):
        made = {tensor.name: tensor_bytes(tensor) for tensor in layer.outputs}
        size |= made
        for name in dict.fromkeys(layer.inputs):
            if name in lives_to and lives_to[name] < place:
                while_running[lives_to[name] + 1 : place] += size[name]
                peak = max(peak, int(while_running[lives_to[name] + 1 : place].max(initial=0)))
                lives_to[name] = place
        here = sum(size[name] for name in dict.fromkeys(layer.inputs) if name in lives_to)
        if layer.name in constant:
            lives_to |= dict.fromkeys((name for name in made if name not in graph.outputs), place)
            here += sum(size[name] for name in made if name in lives_to)
        alive += sum(bytes_ for name, bytes_ in made.items() if name not in lives_to)
        while_running[place] = alive + here
        peak = max(peak, alive + here)
        weights += layer.weight_bytes
        all_measured = all_measured and layer.name in measured
        most = max(most, measured.get(layer.name, 0))
        found[place + 1] = weights + (most if all_measured else peak)
        dead = {name for name in (*layer.inputs, *made) if last_use.get(name, place) == place}
        alive -= sum(size[name] for name in dead if name not in lives_to and name not in graph.outputs)
    return found


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
