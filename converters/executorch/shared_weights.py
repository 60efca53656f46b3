"""Layers that read the same constants get copies of their own, so that each use is quantized for itself.

PT2E's annotations take a constant for one layer only and leave every further reader in float (executorch 1.5.1). A
network shares weights when it applies a layer twice; a TFLite file shares every constant of equal bytes, such as biases
that are all zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.executorch.layers import layer_name
from converters.executorch.program import attribute, set_attribute
from edge_deploy.core.artifact import LayerOutcome

__all__ = ["note_shared", "unshare"]

_READERS = ("aten.conv", "aten.linear")
_WEIGHT, _BIAS = 1, 2


def unshare(graph: Any) -> tuple[int, dict[str, str]]:
    """Copy weights and biases that an earlier convolution or linear of an unlifted graph reads already, in place.

    Returns:
        How many were copied, and for each layer with a copied weight the layer that had it first.
    """
    first: dict[str, str] = {}
    layers: dict[str, str] = {}
    copied = 0
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not str(node.target).startswith(_READERS):
            continue
        for place in (_WEIGHT, _BIAS):
            constant: Any = node.args[place] if len(node.args) > place else None
            if getattr(constant, "op", "") != "get_attr":
                continue
            path = str(constant.target)
            if path not in first:
                first[path] = layer_name(node)
                continue
            with graph.graph.inserting_before(node):
                own = graph.graph.get_attr(set_attribute(graph, path, "own", attribute(graph, path).detach().clone()))
            own.meta = {**constant.meta}
            node.args = (*node.args[:place], own, *node.args[place + 1 :])
            copied += 1
            if place == _WEIGHT:
                layers[layer_name(node)] = first[path]
    graph.recompile()
    return copied, layers


def note_shared(outcomes: Sequence[LayerOutcome], shared: Mapping[str, str], model: Path) -> tuple[LayerOutcome, ...]:
    """Say of layers that share weights in the source what their copy costs in the file `model`.

    Weights that came out alike are in the file once; scales searched for each use make them differ.

    Args:
        shared: By layer name, the layer that had the weights first.
    """
    from runtimes.formats.pte import read_pte

    if not shared:
        return tuple(outcomes)
    keys = {operator.layer: operator.weight_key for operator in read_pte(model).operators if operator.weight_key}

    def noted(outcome: LayerOutcome) -> LayerOutcome:
        owner = shared.get(outcome.layer)
        if owner is None:
            return outcome
        alike = outcome.layer in keys and keys[outcome.layer] == keys.get(owner)
        cost = "stored once" if alike else f"{outcome.weight_bytes} bytes for a copy of its own"
        note = f"has the weights of {owner}: {cost}"
        return replace(outcome, reason=f"{outcome.reason}; {note}" if outcome.reason else note)

    return tuple(noted(outcome) for outcome in outcomes)
