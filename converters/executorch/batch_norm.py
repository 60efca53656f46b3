"""Fold batch norms of an exported graph into the layer before them, or make them depthwise 1x1 convolutions."""

from __future__ import annotations

from typing import Any

from converters.executorch.program import attribute, set_attribute

__all__ = ["fold_batch_norms"]


def fold_batch_norms(graph: Any, *, into_layers: bool = True) -> int:
    """Remove inference batch norms, in place; returns how many disappeared in the layers before them.

    A batch norm whose input comes from a convolution or linear of its own disappears in that layer's weights
    (arXiv:1712.05877, section 3.2). One that stands alone on images, as in pre-activation ResNets, becomes a 1x1
    depthwise convolution, which is the same arithmetic and can be quantized per channel.

    Args:
        into_layers: False keeps all of them apart from the layers before them.
    """
    import torch

    folded = 0
    for node in list(graph.graph.nodes):
        if node.target is not torch.ops.aten.batch_norm.default or node.args[5]:
            continue
        if any(arg is not None and getattr(arg, "op", "") != "get_attr" for arg in node.args[1:5]):
            continue
        statistics = [None if arg is None else attribute(graph, arg.target) for arg in node.args[1:5]]
        scale, shift = _scale_and_shift(statistics, float(node.args[7]))
        if into_layers and _fold_into_producer(graph, node, scale, shift):
            folded += 1
        else:
            _make_depthwise(graph, node, scale, shift)
    return folded


def _scale_and_shift(statistics: list[Any], epsilon: float) -> tuple[Any, Any]:
    import torch

    gamma, beta, mean, variance = (None if value is None else value.detach().double() for value in statistics)
    assert mean is not None and variance is not None
    scale = torch.rsqrt(variance + epsilon)
    if gamma is not None:
        scale = scale * gamma
    shift = -mean * scale
    return scale, shift if beta is None else shift + beta


def _fold_into_producer(graph: Any, node: Any, scale: Any, shift: Any) -> bool:
    import torch

    aten = torch.ops.aten
    producer = node.args[0]
    axis = {
        aten.conv1d.default: 0,
        aten.conv2d.default: 0,
        aten.conv3d.default: 0,
        aten.linear.default: 0,
        aten.conv_transpose2d.input: 1,
    }.get(getattr(producer, "target", None))
    if axis is None or len(producer.users) != 1 or producer.args[1].op != "get_attr":
        return False
    value = node.meta.get("val")
    if producer.target is aten.linear.default and (value is None or value.dim() != 2):
        return False
    weight = attribute(graph, producer.args[1].target)
    if weight.shape[axis] != len(scale):
        return False  # a grouped transposed convolution interleaves its channels
    bias_node = producer.args[2] if len(producer.args) > 2 else None
    if bias_node is not None and bias_node.op != "get_attr":
        return False
    shape = [1] * weight.dim()
    shape[axis] = -1
    folded = (weight.double() * scale.reshape(shape)).to(weight.dtype)
    bias = torch.zeros(len(scale)) if bias_node is None else attribute(graph, bias_node.target)
    moved = (bias.double() * scale + shift).to(weight.dtype)
    path = str(producer.args[1].target)
    with graph.graph.inserting_before(producer):
        new_weight = graph.graph.get_attr(set_attribute(graph, path, "folded", folded))
        new_bias = graph.graph.get_attr(set_attribute(graph, path, "folded_bias", moved))
    new_weight.meta["val"], new_bias.meta["val"] = folded, moved
    producer.args = (producer.args[0], new_weight, new_bias, *producer.args[3:])
    node.replace_all_uses_with(producer)
    graph.graph.erase_node(node)
    return True


def _make_depthwise(graph: Any, node: Any, scale: Any, shift: Any) -> None:
    import torch

    value = node.meta.get("val")
    if value is None or value.dim() != 4:
        return
    near = str(node.args[3].target)
    dtype = attribute(graph, near).dtype
    with graph.graph.inserting_before(node):
        weight = graph.graph.get_attr(set_attribute(graph, near, "scale", scale.to(dtype).reshape(-1, 1, 1, 1)))
        bias = graph.graph.get_attr(set_attribute(graph, near, "shift", shift.to(dtype)))
        weight.meta["val"], bias.meta["val"] = scale.reshape(-1, 1, 1, 1), shift
        arguments = (node.args[0], weight, bias, [1, 1], [0, 0], [1, 1], len(scale))
        conv = graph.graph.call_function(torch.ops.aten.conv2d.default, arguments)
    conv.meta = {**node.meta}
    node.replace_all_uses_with(conv)
    graph.graph.erase_node(node)
