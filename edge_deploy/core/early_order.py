"""Layers in an order in which every output is made as early as it can be: cuts behind an early exit become prefixes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from edge_deploy.core.layer_graph import Layer, LayerGraph

__all__ = ["outputs_early"]


def outputs_early(graph: LayerGraph) -> LayerGraph:
    """The same layers; those that lead to an output, but not to the deepest one, stand where they can first run.

    Files often have what ends an output, such as a dequantization, behind everything else: then no prefix of their
    order has the output of an early exit without the whole model before it.
    """
    deepest: Collection[str] = ()
    leading: set[str] = set()
    for output in graph.outputs:
        found = _leading_to(output, graph)
        leading |= found
        if len(found) >= len(deepest):
            deepest = found
    aside = [layer for layer in graph.layers if layer.name in leading and layer.name not in deepest]
    if not aside:
        return graph
    known = {tensor.name for tensor in graph.inputs}
    ordered: list[Layer] = []

    def take(layer: Layer) -> None:
        ordered.append(layer)
        known.update(tensor.name for tensor in layer.outputs)

    names = {layer.name for layer in aside}
    for layer in graph.layers:
        if layer.name in names:
            continue
        take(layer)
        waiting = []
        for other in aside:
            if known.issuperset(other.inputs):
                take(other)
            else:
                waiting.append(other)
        aside = waiting
    for layer in aside:  # of inputs alone, in a model whose other layers are none
        take(layer)
    return dataclasses.replace(graph, layers=tuple(ordered))


def _leading_to(output: str, graph: LayerGraph) -> set[str]:
    """Names of the layers that an output depends on."""
    wanted, found = {output}, set()
    for layer in reversed(graph.layers):
        if any(tensor.name in wanted for tensor in layer.outputs):
            found.add(layer.name)
            wanted.update(layer.inputs)
    return found
