"""Means over whole images get a scale of their own: a mean is far smaller than the largest pixel behind it.

XNNPACK's annotations let a mean share the scale of its input, which leaves a mean of values of both signs a few bits.
Its kernel takes two scales.
"""

from __future__ import annotations

from typing import Any

__all__ = ["annotate_means"]


def annotate_means(graph: Any, activation: Any) -> None:
    """Let every mean that is annotated already keep its input's scale for its input alone."""
    import torch
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, SharedQuantizationSpec
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    for node in graph.graph.nodes:
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if node.target is not torch.ops.aten.mean.dim or annotation is None or not annotation._annotated:
            continue
        if not isinstance(annotation.output_qspec, SharedQuantizationSpec):
            continue  # has a scale of its own already, from the quantizer of another width
        source = node.args[0]
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
            input_qspec_map={source: SharedQuantizationSpec(source)}, output_qspec=activation, _annotated=True
        )
