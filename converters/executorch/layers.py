"""The layers of an exported program: names, shapes, weights, multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from converters.executorch.program import LAYER, attribute
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_rule import LayerTraits

__all__ = [
    "Weighted",
    "check_finite_weights",
    "is_pointwise",
    "layer_name",
    "layer_traits",
    "node_macs",
    "weighted_layers",
]

_SHAPE_ONLY = ("getitem", "sym_size", "_assert", "_guard", "eq", "ge", "le", "mul", "add")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """A layer with weights.

    Attributes:
        kind: "conv" (one or two dimensions), "conv3d", "conv_transpose", "linear", "embedding", or "other" for
            operators with a constant of at least two dimensions that nothing here quantizes (a recurrent cell, say).
        shape: Of the weight.
        is_pointwise: A convolution that can be computed as a linear: a 1x1 kernel over all channels, no padding.
    """

    name: str
    op: str
    kind: str
    shape: tuple[int, ...]
    groups: int = 1
    is_pointwise: bool = False

    @property
    def count(self) -> int:
        """Number of weights."""
        product = 1
        for size in self.shape:
            product *= size
        return product


_KINDS = {
    "aten.conv1d.default": "conv",
    "aten.conv2d.default": "conv",
    "aten.conv2d.padding": "conv",
    "aten.conv1d.padding": "conv",
    "aten.conv3d.default": "conv3d",
    "aten.conv_transpose1d.default": "conv_transpose",
    "aten.conv_transpose2d.input": "conv_transpose",
    "aten.linear.default": "linear",
    "aten.embedding.default": "embedding",
}
_GROUPS_AT = {"conv": 6, "conv_transpose": 6, "conv3d": 6}


def layer_name(node: Any) -> str:
    """The layer that a node belongs to; its own name when it carries none."""
    return str((node.meta.get("custom") or {}).get(LAYER, node.name))


def is_pointwise(node: Any) -> bool:
    """Whether a convolution has a constant 1x1 kernel over all channels and no padding; its stride may be any."""
    if _KINDS.get(str(node.target)) != "conv" or node.kwargs or getattr(node.args[1], "op", "") != "get_attr":
        return False
    kernel = tuple(node.args[1].meta["val"].shape[2:])
    padding = node.args[4] if len(node.args) > 4 else 0
    groups = node.args[6] if len(node.args) > 6 else 1
    # Of a 1x1 kernel both paddings with a name, "same" and "valid", are none.
    padded = not isinstance(padding, str) and any(padding if isinstance(padding, (list, tuple)) else (padding,))
    return all(size == 1 for size in kernel) and groups == 1 and not padded


def weighted_layers(graph: Any) -> tuple[Weighted, ...]:
    """Layers with weights of an unlifted graph (constants are get_attr nodes), in order of execution."""
    found = []
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        kind = _KINDS.get(str(node.target))
        constants = [arg for arg in node.all_input_nodes if arg.op == "get_attr" and "val" in arg.meta]
        if kind == "embedding":
            weight = node.args[0]
        elif kind is not None:
            weight = node.args[1]
        else:
            large = [arg for arg in constants if arg.meta["val"].is_floating_point() and arg.meta["val"].dim() >= 2]
            if not large or not _is_product(node):
                continue
            weight, kind = max(large, key=lambda arg: arg.meta["val"].numel()), "other"
        if getattr(weight, "op", "") != "get_attr":
            kind, shape = "other", tuple(int(size) for size in weight.meta["val"].shape)
        else:
            shape = tuple(int(size) for size in weight.meta["val"].shape)
        groups = 1
        if kind in _GROUPS_AT and len(node.args) > _GROUPS_AT[kind]:
            groups = int(node.args[_GROUPS_AT[kind]])
        op = str(node.target).removesuffix(".default")
        found.append(
            Weighted(
                name=layer_name(node), op=op, kind=kind, shape=shape, groups=groups, is_pointwise=is_pointwise(node)
            )
        )
    return tuple(found)


def layer_traits(layers: Sequence[Weighted]) -> tuple[LayerTraits, ...]:
    """What the rules of a recipe can know of the layers."""
    return tuple(
        LayerTraits(name=layer.name, op=layer.op, family=_family(layer), weights=layer.count) for layer in layers
    )


def _family(layer: Weighted) -> str:
    if layer.kind == "conv" and layer.groups > 1 and layer.shape[1] == 1:
        return "depthwise"
    return {"conv_transpose": "transposed-conv", "conv3d": "conv"}.get(layer.kind, layer.kind)


def check_finite_weights(graph: Any) -> None:
    """Refuse weights and biases that are NaN or infinite, by layer.

    Raises:
        BadInput: All layers concerned.
    """
    import torch

    problems = []
    for node in graph.graph.nodes:
        if node.op != "call_function" or str(node.target) not in _KINDS:
            continue
        for constant in (arg for arg in node.all_input_nodes if arg.op == "get_attr"):
            values = attribute(graph, str(constant.target))
            wrong = int((~torch.isfinite(values)).sum()) if values.is_floating_point() else 0
            if wrong:
                problems.append(
                    f"layer {layer_name(node)}: {wrong} of {values.numel()} values of {constant.target} are NaN or "
                    "infinite; train it again or mend it."
                )
    if problems:
        raise BadInput(*problems)


def _is_product(node: Any) -> bool:
    """Whether the operator multiplies by its constants as a matrix, so that they count as weights."""
    return any(
        word in str(node.target) for word in ("mm", "matmul", "lstm", "gru", "rnn", "conv", "linear", "bilinear")
    )


def node_macs(node: Any) -> int:
    """Multiply-accumulates of an operator for one sample: a dynamic batch counts as 1."""
    kind = _KINDS.get(str(node.target))
    if str(node.target) == "aten.bmm.default":
        rows, _, width = (size if isinstance(size, int) else 1 for size in node.args[0].meta["val"].shape)
        return rows * width * math.prod(s for s in node.meta["val"].shape[1:] if isinstance(s, int))
    if kind in (None, "embedding"):
        return 0
    weight = node.args[1].meta["val"]
    out = [size if isinstance(size, int) else 1 for size in node.meta["val"].shape]
    if kind == "linear":
        positions = 1
        for size in out[:-1]:
            positions *= size
        return positions * int(weight.numel())
    data = out if kind != "conv_transpose" else [s if isinstance(s, int) else 1 for s in node.args[0].meta["val"].shape]
    positions = data[0]
    for size in data[2:]:
        positions *= size
    return positions * int(weight.numel())
