"""Which cuts no split can carry out, and why: what the format of the artifact has put into its `LayerGraph`."""

from __future__ import annotations

from collections.abc import Collection

from edge_deploy.core.cut import Cut
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.tensor import TensorInfo

__all__ = ["can_cross", "cannot_cross", "divided_group", "group_problems", "illegal_because"]

_UNTOUCHABLE = ("int4", "uint4", "int2")


def illegal_because(graph: LayerGraph, cut: Cut) -> tuple[str, ...]:
    """Why `cut` cannot be split; empty where it can.

    A cut must not divide a group of layers that is computed as one, and what crosses must have whole bytes.
    """
    return (*group_problems(graph, cut.edge_layers), *cannot_cross(cut))


def cannot_cross(cut: Cut) -> tuple[str, ...]:
    """One line for each tensor that would have to cross and has no whole bytes."""
    return tuple(
        f"{tensor.name} would cross as {tensor.dtype}: values that share a byte cannot enter or leave a model"
        for tensor in (*cut.up, *cut.down)
        if not can_cross(tensor)
    )


def can_cross(tensor: TensorInfo) -> bool:
    """Whether a tensor has whole bytes, so that it can leave one model and enter another."""
    return tensor.dtype not in _UNTOUCHABLE


def group_problems(graph: LayerGraph, edge_layers: Collection[str]) -> tuple[str, ...]:
    """One line for each group with layers on both sides."""
    edge = frozenset(edge_layers)
    groups: dict[str, list[str]] = {}
    for layer in graph.layers:
        if layer.group:
            groups.setdefault(layer.group, []).append(layer.name)
    found = []
    for members in groups.values():
        here = [name for name in members if name in edge]
        if here and len(here) < len(members):
            found.append(divided_group(members))
    return tuple(found)


def divided_group(members: list[str]) -> str:
    """What is said of a group that a cut would divide."""
    return f"inside a fused pattern: {_listed(members)} are computed as one"


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
