"""PReLU of rows and sequences as products and sums: XNNPACK's own is for images, and its partitioner takes any rank."""

from __future__ import annotations

from typing import Any

from converters.executorch.program import LAYER, attribute, set_attribute

__all__ = ["spell_out_prelus"]

_IMAGE_RANK = 4


def spell_out_prelus(graph: Any) -> int:
    """max(x, 0) * (1 - slope) + x * slope in place of a PReLU whose input is no image; returns how many."""
    import torch

    aten = torch.ops.aten
    changed = 0
    for node in list(graph.graph.nodes):
        if node.target is not aten.prelu.default or node.args[1].op != "get_attr":
            continue
        x, rank = node.args[0], node.meta["val"].dim()
        if rank == _IMAGE_RANK:
            continue
        path = str(node.args[1].target)
        slope = attribute(graph, path).detach().reshape(-1)
        if slope.numel() > 1 and rank > 2:
            slope = slope.reshape(-1, *[1] * (rank - 2))  # one for each channel, which stand behind the batch

        def call(target: Any, *args: Any, suffix: str, node: Any = node) -> Any:
            made = graph.graph.call_function(target, args)
            custom = node.meta.get("custom", {})
            made.meta["custom"] = {**custom, LAYER: f"{custom.get(LAYER, node.name)}{suffix}"}
            made.meta["val"] = node.meta["val"]
            return made

        def constant(value: Any, suffix: str, path: str = path) -> Any:
            made = graph.graph.get_attr(set_attribute(graph, path, suffix, value))
            made.meta["val"] = value
            return made

        with graph.graph.inserting_before(node):
            positive = call(aten.relu.default, x, suffix=".positive")
            rest = call(aten.mul.Tensor, positive, constant(1 - slope, "rest"), suffix=".rest")
            sloped = call(aten.mul.Tensor, x, constant(slope, "slope"), suffix=".slope")
            result = call(aten.add.Tensor, rest, sloped, suffix="")
        node.replace_all_uses_with(result)
        graph.graph.erase_node(node)
        changed += 1
    return changed
