"""The cuts that are weighed by default: every prefix of the topological order, several tensors crossing if need be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.legality import cannot_cross
from edge_deploy.core.tensor import TensorInfo
from partitioner.legal import IDLE_CLOUD, IDLE_EDGE
from partitioner.prefix_cuts import Prefix, walk_prefixes

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
    found: list[Candidate] = []
    macs, weights = 0, 0
    for layer, prefix in zip((None, *graph.layers), walk_prefixes(graph), strict=True):
        if layer is not None:
            macs += layer.macs
            weights += layer.weight_bytes
        found.append(
            Candidate(
                cut=prefix.cut,
                after=layer.name if layer is not None else "",
                edge_macs=macs,
                edge_weight_bytes=weights,
                refused=_reasons_against(prefix, is_first=layer is None, is_last=len(found) == len(graph.layers)),
            )
        )
    return tuple(found)


def _reasons_against(prefix: Prefix, *, is_first: bool, is_last: bool) -> tuple[str, ...]:
    """As `partitioner.legal.reasons_against` says it."""
    found = [*prefix.divided, *cannot_cross(prefix.cut)]
    if not is_first and not prefix.edge_moves:
        found.append(IDLE_EDGE)
    elif not is_last and not prefix.cloud_moves:
        found.append(IDLE_CLOUD)
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
