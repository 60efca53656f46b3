"""Cuts with one tensor as Scission finds them (Lockhart et al., UCC 2020): where no branch is open.

A counter walks the layers: each reader beyond the first opens a branch, each input beyond the first closes one. Where
no branch is open the model can be cut at one tensor that one layer reads. This is narrower than "one tensor crosses":
behind a tensor with two readers a branch is open already, although a single tensor would cross there.
"""

from __future__ import annotations

from collections import Counter

from edge_deploy.core.cut import Cut, make_cut
from edge_deploy.core.layer_graph import LayerGraph

__all__ = ["single_tensor_cuts"]


def single_tensor_cuts(graph: LayerGraph) -> tuple[Cut, ...]:
    """The cuts in order: all-cloud counts where one layer reads the input, all-edge never does."""
    readers = Counter(name for layer in graph.layers for name in layer.inputs)
    links = sum(readers[tensor.name] for tensor in graph.inputs)
    names = [layer.name for layer in graph.layers]
    found = [make_cut(graph, ())] if links == 1 else []
    for count, layer in enumerate(graph.layers[:-1], start=1):
        links += sum(readers[tensor.name] for tensor in layer.outputs) - len(layer.inputs)
        if links == 1:
            found.append(make_cut(graph, names[:count]))
    return tuple(found)
