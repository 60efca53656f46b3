"""1x1 convolutions as linears over channels-last pixels, whose 4-bit weights XNNPACK packs inside a plain `.pte`.

XNNPACK has no packed 4-bit convolution; one that looks at a single pixel at a time is the same product as a linear.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from converters.executorch.layers import is_pointwise, layer_name
from converters.executorch.program import LAYER, attribute, set_attribute

__all__ = ["pointwise_to_linear"]

# Stay between the linear and the move back, where PT2E fuses them.
_FUSED = (
    *("aten.relu.default", "aten.relu_.default", "aten.relu6.default", "aten.relu6_.default"),
    *("aten.hardtanh.default", "aten.hardtanh_.default", "aten.clamp.default"),
)


def pointwise_to_linear(graph: Any, layers: Collection[str]) -> int:
    """Rewrite the pointwise convolutions among `layers` of an unlifted graph, in place; returns how many.

    A relu or clamp that alone reads the convolution goes along. The shapes in `meta` are wrong then: export again.
    """
    changed = 0
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and layer_name(node) in layers and is_pointwise(node):
            _rewrite(graph, node)
            changed += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return changed


def _rewrite(graph: Any, node: Any) -> None:
    import torch

    aten = torch.ops.aten
    source, path = node.args[0], str(node.args[1].target)
    weight = attribute(graph, path).detach()
    rank, name = weight.dim(), layer_name(node)
    bias = node.args[2] if len(node.args) > 2 else None
    stride = node.args[3] if len(node.args) > 3 else 1
    strides = stride if isinstance(stride, (list, tuple)) else (stride,)
    strides = tuple(strides) if len(strides) == rank - 2 else tuple(strides) * (rank - 2)

    def move(value: Any, order: list[int], suffix: str) -> Any:
        back = [order.index(axis) for axis in range(rank)]
        if value.target is aten.permute.default and list(value.args[1]) == back:
            return value.args[0]  # comes from such a linear already
        made = graph.graph.call_function(aten.permute.default, (value, order))
        made.meta["custom"] = {LAYER: f"{name}.{suffix}"}
        return made

    with graph.graph.inserting_before(node):
        for axis, step in enumerate(strides, start=2):
            if step != 1:
                some = source.meta["val"][(*[slice(None)] * axis, slice(None, None, step))]
                source = graph.graph.call_function(aten.slice.Tensor, (source, axis, 0, 2**63 - 1, step))
                source.meta.update(val=some, custom={LAYER: f"{name}.stride{axis}"})
        pixels = move(source, [0, *range(2, rank), 1], "channels_last")
        matrix = graph.graph.get_attr(set_attribute(graph, path, "matrix", weight.flatten(1)))
        arguments = (pixels, matrix) if bias is None else (pixels, matrix, bias)
        linear = graph.graph.call_function(aten.linear.default, arguments)
        linear.meta = {**node.meta}
    last = linear
    node.replace_all_uses_with(linear)
    graph.graph.erase_node(node)
    while len(last.users) == 1 and str(next(iter(last.users)).target) in _FUSED:
        last = next(iter(last.users))
    readers = list(last.users)
    with graph.graph.inserting_after(last):
        image = move(last, [0, rank - 1, *range(1, rank - 1)], "channels_first")
    for reader in readers:
        reader.replace_input_with(last, image)
