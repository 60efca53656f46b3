"""Which tensors of a float file the activation scales that training learned belong to."""

from __future__ import annotations

from collections.abc import Mapping

from converters.quantize.uniform import Affine
from converters.tflite.flatbuffer import tensor_name
from converters.tflite.operators import OPERATORS
from converters.tflite.structure import View

__all__ = ["trained_activations"]


def trained_activations(graphs: tuple[View, ...], affine: Mapping[str, Affine]) -> dict[str, Affine]:
    """By tensor name, as the quantizer wants them.

    A kernel that demands one scale for several tensors (a concatenation, say) takes what samples say where training
    learned different ones for them.

    Args:
        affine: By the name of the input or layer.
    """
    found: dict[str, Affine] = {}
    for view in graphs:
        own = {index: tensor_name(view.tensor(index)) for index in view.graph.inputs if view.is_float(index)}
        told = {index: affine[name] for index, name in own.items() if name in affine}
        for node in view.nodes:
            if node.layer in affine and node.outputs and view.is_float(node.outputs[0]):
                told[node.outputs[0]] = affine[node.layer]
        for group in _groups(view):
            if len({told[index] for index in group if index in told}) > 1:
                told = {index: value for index, value in told.items() if index not in group}
        found |= {tensor_name(view.tensor(index)): value for index, value in told.items()}
    return found


def _groups(view: View) -> list[set[int]]:
    """Tensors that share one scale."""
    groups: list[set[int]] = []
    for node in view.nodes:
        rule = OPERATORS.get(node.kind)
        if rule is None or rule.kind != "same":
            continue
        joined = {index for index in (*node.inputs, *node.outputs) if view.is_activation(index)}
        apart = [group for group in groups if not group & joined]
        groups = [*apart, joined.union(*(group for group in groups if group & joined))]
    return groups
