"""Differences get INT8 inputs and outputs: XNNPACK has the kernel, its stock quantizer no annotation (1.5.1)."""

from __future__ import annotations

from typing import Any

__all__ = ["annotate_differences"]


def annotate_differences(graph: Any, activation: Any) -> None:
    """Annotate every difference of two floating-point tensors that is not annotated yet."""
    import torch
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    for node in graph.graph.nodes:
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if node.target is not torch.ops.aten.sub.Tensor or (annotation is not None and annotation._annotated):
            continue
        values = [getattr(arg, "meta", {}).get("val") for arg in node.args]
        if node.kwargs or not all(isinstance(value, torch.Tensor) and value.is_floating_point() for value in values):
            continue
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
            input_qspec_map=dict.fromkeys(node.args, activation), output_qspec=activation, _annotated=True
        )
