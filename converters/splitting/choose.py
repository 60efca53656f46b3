"""Find the cuts that a user names: by id, by their edge layers, or all prefixes of the topological order."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE, Cut, cut_id, make_cut
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph

__all__ = ["cut_by_id", "prefix_cuts"]


def prefix_cuts(graph: LayerGraph) -> tuple[Cut, ...]:
    """Every prefix of the layers, from none (all-cloud) to all (all-edge)."""
    names = [layer.name for layer in graph.layers]
    return tuple(make_cut(graph, names[:count]) for count in range(len(names) + 1))


def cut_by_id(graph: LayerGraph, wanted: str, *, known: Sequence[Cut] = ()) -> Cut:
    """The cut of this id: one of `known`, or a prefix of the layers.

    Raises:
        BadInput: There is none; close ids are suggested.
    """
    for cut in known:
        if cut.id == wanted:
            return cut
    names = [layer.name for layer in graph.layers]
    if wanted in (ALL_EDGE, ALL_CLOUD):
        return make_cut(graph, names if wanted == ALL_EDGE else [])
    count = wanted.partition("-")[0]
    if count.isdigit() and int(count) <= len(names) and cut_id(graph, names[: int(count)]) == wanted:
        return make_cut(graph, names[: int(count)])
    ids = [cut_id(graph, names[:size]) for size in range(len(names) + 1)]
    close = difflib.get_close_matches(wanted, ids, n=3)
    raise BadInput(
        f"--cut {wanted}: no prefix of the model's {len(names)} layers has this id"
        + (f"; did you mean {', '.join(close)}?" if close else ".")
        + " A cut that is no prefix is named by its layers: --edge-layers a,b,c."
    )
