"""The cuts that are weighed by default: every prefix of the topological order, several tensors crossing if need be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edge_deploy.core.cut import Cut, make_cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.tensor import TensorInfo
from partitioner.legal import reasons_against

__all__ = ["Candidate", "fix_batch", "legal_cuts", "prefixes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A position in the topological order.

    Attributes:
        after: Name of the last edge layer; empty for all-cloud.
        edge_macs: Multiply-accumulates of the edge half.
        edge_weight_bytes: Of its weights.
        refused: Why no split can be made here; empty for a legal cut.
    """

    cut: Cut
    after: str
    edge_macs: int
    edge_weight_bytes: int
    refused: tuple[str, ...] = ()


def prefixes(graph: LayerGraph) -> tuple[Candidate, ...]:
    """All prefixes in order, all-cloud first and all-edge last, illegal ones with their reasons.

    Raises:
        BadInput: The model has no layers.
    """
    if not graph.layers:
        raise BadInput("the model has no layers: there is nothing to cut.")
    found, macs, weights = [], 0, 0
    names = [layer.name for layer in graph.layers]
    for count in range(len(names) + 1):
        if count:
            macs += graph.layers[count - 1].macs
            weights += graph.layers[count - 1].weight_bytes
        cut = make_cut(graph, names[:count])
        candidate = Candidate(
            cut=cut,
            after=names[count - 1] if count else "",
            edge_macs=macs,
            edge_weight_bytes=weights,
            refused=reasons_against(graph, cut),
        )
        found.append(candidate)
    return tuple(found)


def legal_cuts(graph: LayerGraph) -> tuple[Cut, ...]:
    """The prefixes that can be split."""
    return tuple(candidate.cut for candidate in prefixes(graph) if not candidate.refused)


def fix_batch(graph: LayerGraph, batch: int) -> LayerGraph:
    """The graph with `batch` where dimension 0 of a tensor is dynamic."""

    def fixed(tensor: TensorInfo) -> TensorInfo:
        if not tensor.shape or tensor.shape[0] >= 0:
            return tensor
        return dataclasses.replace(tensor, shape=(batch, *tensor.shape[1:]))

    layers = tuple(
        dataclasses.replace(layer, outputs=tuple(fixed(tensor) for tensor in layer.outputs)) for layer in graph.layers
    )
    return dataclasses.replace(graph, inputs=tuple(fixed(tensor) for tensor in graph.inputs), layers=layers)
