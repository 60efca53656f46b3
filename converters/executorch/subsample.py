"""Every second pixel, perhaps between channels of zeros, as a 1x1 convolution with weights of one and zero.

A slice with a step is a portable operator that ends the delegate, and a pad of channels behind it is computed in float;
shortcuts of ResNets ("option A") consist of both. The convolution keeps the scale of its input, so that the INT8 values
which it moves stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from converters.executorch.program import LAYER, set_attribute

__all__ = ["annotate_subsamples", "subsample_by_convolution"]

_KEEPS_VALUES = "keeps_values"  # marks the convolutions in a node's meta["custom"]
_AXES = {2: 0, 3: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """What one convolution replaces: strides by image axis, channels of zeros before and behind, the last node."""

    strides: tuple[int, int]
    zeros: tuple[int, int]
    last: Any


def subsample_by_convolution(graph: Any) -> int:
    """Rewrite the slices of images with a step, and the channel pads behind them, in place; returns how many.

    The graph is to be exported again and quantized: `annotate_subsamples` gives the convolutions their scales.
    """
    import torch

    made = 0
    gone: set[Any] = set()
    for node in list(graph.graph.nodes):
        chain = None if node in gone else _chain(node)
        if chain is None:
            continue
        image = node.args[0]
        channels = int(image.meta["val"].shape[1])
        padded = any(chain.zeros)
        weight = (
            torch.nn.functional.pad(torch.eye(channels), (0, 0, *chain.zeros)) if padded else torch.ones(channels, 1)
        )
        with graph.graph.inserting_before(node):
            constant = graph.graph.get_attr(set_attribute(graph, node.name, "weight", weight[..., None, None]))
            arguments = (image, constant, None, list(chain.strides), [0, 0], [1, 1], 1 if padded else channels)
            conv = graph.graph.call_function(torch.ops.aten.conv2d.default, arguments)
        custom = node.meta.get("custom", {})
        conv.meta = {**chain.last.meta, "custom": {LAYER: node.name, **custom, _KEEPS_VALUES: "yes"}}
        chain.last.replace_all_uses_with(conv)
        while chain.last is not image:
            gone.add(chain.last)
            before = chain.last.args[0]
            graph.graph.erase_node(chain.last)
            chain = _Chain(strides=chain.strides, zeros=chain.zeros, last=before)
        made += 1
    graph.recompile()
    return made


def _chain(node: Any) -> _Chain | None:
    """The chain that begins at `node`, if it is a slice of an image with a step."""
    strides, zeros, last, found = [1, 1], (0, 0), None, node
    while (step := _step(found)) is not None:
        axis, size = step
        if strides[axis] != 1:
            break
        strides[axis], last = size, found
        if len(found.users) != 1:
            break
        found = next(iter(found.users))
    if last is None:
        return None
    if len(last.users) == 1 and (around := _channel_zeros(next(iter(last.users)))) is not None:
        zeros, last = around, next(iter(last.users))
    return _Chain(strides=(strides[0], strides[1]), zeros=zeros, last=last)


def _step(node: Any) -> tuple[int, int] | None:
    """Image axis (0 for height) and step of a slice that begins with the first pixel and ends with the image."""
    import torch

    if node.target is not torch.ops.aten.slice.Tensor or node.kwargs or len(node.args) < 5:
        return None
    image, axis, start, end, step = node.args
    value = image.meta.get("val")
    if value is None or value.dim() != 4 or value.dtype is not torch.float32 or step == 1:
        return None
    sizes = tuple(value.shape)
    axis %= 4
    if axis not in _AXES or not all(isinstance(size, int) for size in (sizes[1], sizes[axis], end)):
        return None
    return (_AXES[axis], int(step)) if start in (0, None) and end >= sizes[axis] else None


def _channel_zeros(node: Any) -> tuple[int, int] | None:
    """Channels of zeros that a pad puts before and behind an image, where it does nothing else."""
    import torch

    aten = torch.ops.aten
    if node.target is aten.constant_pad_nd.default:
        value = node.args[2] if len(node.args) > 2 else 0.0
    elif node.target is aten.pad.default and (len(node.args) < 3 or node.args[2] == "constant"):
        value = (node.args[3] if len(node.args) > 3 else 0.0) or 0.0
    else:
        return None
    sides = [*node.args[1], *[0] * (8 - len(node.args[1]))]
    if node.kwargs or value or any(sides[:4]) or any(sides[6:]) or min(sides) < 0:
        return None
    return int(sides[4]), int(sides[5])


def annotate_subsamples(graph: Any, activation: Any, weight: Any) -> None:
    """Give the convolutions of `subsample_by_convolution` the scale of their input; call it before other annotators."""
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, SharedQuantizationSpec
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

    for node in graph.graph.nodes:
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if _KEEPS_VALUES not in (node.meta.get("custom") or {}) or "conv2d" not in str(node.target):
            continue
        if annotation is not None and annotation._annotated:
            continue
        node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
            input_qspec_map={node.args[0]: activation, node.args[1]: weight},
            output_qspec=SharedQuantizationSpec((node.args[0], node)),
            _annotated=True,
        )
