"""Zero padding between quantized layers: annotated like its input, and joined to the convolution behind it.

XNNPACK's lowering has three ways with a pad behind a dequantize (executorch 1.5.1): directly before a quantized
convolution it becomes an int8 pad; between dequantize and quantize a float pad with two conversions; and before
anything else that stays in float it becomes a node that fails to load. The third must never be made.
"""

from __future__ import annotations

from typing import Any

__all__ = ["annotate_pads", "join_pads"]


def annotate_pads(graph: Any, activation: Any) -> None:
    """Give every zero pad that is not annotated yet the quantization of its input."""
    import torch
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, SharedQuantizationSpec
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    for node in graph.graph.nodes:
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if not _is_zero_pad(node) or (annotation is not None and annotation._annotated):
            continue
        value = node.args[0].meta.get("val")
        if value is None or value.dtype != torch.float32:
            continue
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
            input_qspec_map={node.args[0]: activation},
            output_qspec=SharedQuantizationSpec((node.args[0], node)),
            _annotated=True,
        )


def join_pads(graph: Any) -> None:
    """Drop quantize and dequantize between a spatial pad and the quantized convolutions behind it."""
    import torch

    operators = torch.ops.quantized_decomposed
    quantize, dequantize = operators.quantize_per_tensor.default, operators.dequantize_per_tensor.default
    for node in list(graph.graph.nodes):
        if not _is_zero_pad(node) or node.args[0].target is not dequantize or any(node.args[1][4:]):
            continue
        before = node.args[0].args[1:]
        quantizes = list(node.users)
        if len(quantizes) != 1 or any(user.target is not quantize or user.args[1:] != before for user in quantizes):
            continue
        dequantizes = [user for each in quantizes for user in each.users]
        behind = [user for each in dequantizes for user in each.users]
        # The partitioner takes a pad into a convolution only where nothing else reads it.
        if (
            len(behind) != 1
            or any(each.target is not dequantize for each in dequantizes)
            or not all(map(_is_quantized_conv2d, behind))
        ):
            continue
        for each in dequantizes:
            each.replace_all_uses_with(node)
            graph.graph.erase_node(each)
        for each in quantizes:
            graph.graph.erase_node(each)
    graph.recompile()


def _is_zero_pad(node: Any) -> bool:
    import torch

    aten = torch.ops.aten
    if node.op != "call_function":
        return False
    if node.target is aten.constant_pad_nd.default:
        value = node.args[2] if len(node.args) > 2 else 0.0
    elif node.target is aten.pad.default:
        mode = node.args[2] if len(node.args) > 2 else "constant"
        value = (node.args[3] if len(node.args) > 3 else 0.0) if mode == "constant" else 1.0
    else:
        return False
    return not node.kwargs and not value and all(size >= 0 for size in node.args[1])


def _is_quantized_conv2d(node: Any) -> bool:
    import torch

    if node.target not in (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding):
        return False
    return getattr(node.args[1], "target", None) is torch.ops.quantized_decomposed.dequantize_per_channel.default
