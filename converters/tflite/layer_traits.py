"""What the rules of a recipe can know of a TFLite file's layers: operator, family, number of weights."""

from __future__ import annotations

import math

from converters.tflite.structure import WEIGHT_SLOTS, Node, View, twin_of
from edge_deploy.core.layer_rule import LayerTraits

__all__ = ["layer_traits"]

FAMILIES = {
    "CONV_2D": "conv",
    "CONV_3D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "TRANSPOSE_CONV": "transposed-conv",
    "FULLY_CONNECTED": "linear",
    "EMBEDDING_LOOKUP": "embedding",
    "GATHER": "embedding",
}
# Stored operands that count as weights although the operator also works without.
OPERANDS = {**WEIGHT_SLOTS, "BATCH_MATMUL": 1, "CONV_3D": 1}


def layer_traits(graphs: tuple[View, ...]) -> tuple[LayerTraits, ...]:
    """Every layer of a float model in order of execution; the same network at another batch size is told once."""
    return tuple(
        _traits(view, node) for view in graphs if twin_of(view.model, view.index) == view.index for node in view.nodes
    )


def _traits(view: View, node: Node) -> LayerTraits:
    slot = OPERANDS.get(node.kind)
    if slot is None or slot >= len(node.inputs):
        return LayerTraits(name=node.layer, op=node.kind)
    index = node.inputs[slot]
    if not (view.is_float(index) and view.is_constant(index)):
        return LayerTraits(name=node.layer, op=node.kind)
    return LayerTraits(
        name=node.layer,
        op=node.kind,
        family=FAMILIES.get(node.kind, "other"),
        weights=math.prod(int(size) for size in view.tensor(index).shape),
    )
