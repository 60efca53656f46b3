"""Which cuts can be carried out, and for the others the reasons."""

from __future__ import annotations

from edge_deploy.core.cut import Cut
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.legality import illegal_because

__all__ = ["IDLE_CLOUD", "IDLE_EDGE", "reasons_against"]

IDLE_EDGE = "the edge would compute nothing that depends on the inputs: the same as all-cloud"
IDLE_CLOUD = "the cloud would compute nothing that depends on the inputs: the same as all-edge"


def reasons_against(graph: LayerGraph, cut: Cut) -> tuple[str, ...]:
    """Why `cut` is not offered; empty for a legal one.

    A split must be able to carry it out (no fused pattern is divided, whole bytes cross), and both halves must compute
    something that depends on the inputs: layers that are made of weights alone are no half.
    """
    constant = graph.constant_layers
    edge = frozenset(cut.edge_layers)
    moving = {layer.name for layer in graph.layers} - constant
    found = list(illegal_because(graph, cut))
    if edge and not edge & moving:
        found.append(IDLE_EDGE)
    elif moving <= edge and len(edge) < len(graph.layers):
        found.append(IDLE_CLOUD)
    return tuple(found)
