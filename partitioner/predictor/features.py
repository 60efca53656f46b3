"""What a layer's time depends on, as numbers that any layer graph gives: work, bytes, weights, gathering, waste."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.tensor import TensorInfo

__all__ = ["CLASSES", "FEATURES", "Work", "feature_row", "graph_work", "layer_class"]

# All are per million, and the first is 1, so that coefficients are seconds each.
FEATURES = ("call", "macs", "bytes", "weight_bytes", "gathered", "idle_outputs", "idle_inputs")
CLASSES = ("conv", "depthwise", "dense", "pool", "elementwise", "lookup", "move", "other")
# Kernels compute whole vector registers: so many output channels side by side, so many input channels at once.
OUTPUT_LANES = 16
INPUT_LANES = 8
_BY_NAME = (
    ("depthwise", ("depthwise",)),
    ("conv", ("conv",)),
    ("dense", ("fully_connected", "linear", "matmul", "addmm", "aten.mm", "dense")),
    ("pool", ("pool", "mean", "amax")),
    ("lookup", ("embedding", "gather", "index_select")),
    (
        "move",
        ("reshape", "flatten", "view", "squeeze", "permute", "transpose", "contiguous", "concat", "aten.cat", "slice",
         "split", "pad", "clone", "expand_dims"),
    ),
    (
        "elementwise",
        ("add", "mul", "sub", "div", "relu", "clamp", "hardtanh", "softmax", "logistic", "sigmoid", "tanh", "swish",
         "elu", "quant", "norm", "activation", "max", "min", "neg", "abs"),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one layer does.

    Attributes:
        name: One of `CLASSES`, with "-float" or "-uint8" behind where it does not compute in int8: what kernels of one
            type of number take says nothing of another.
        macs: Multiply-accumulates; `moved_bytes`: read and written; `weight_bytes`: read beside them.
        out_channels: How many values are computed from the same inputs; 0 where that has no meaning.
        in_channels: How many of its inputs lie side by side; 0 where that has no meaning.
    """

    name: str
    macs: float
    moved_bytes: float
    weight_bytes: float
    out_channels: int = 0
    in_channels: int = 0

    @property
    def kind(self) -> str:
        """The class without the type of number."""
        return self.name.partition("-")[0]


def feature_row(work: Work) -> np.ndarray:
    """The features of one layer, shape (len(FEATURES),).

    `gathered` counts the inputs that a convolution collects for each place of its output, once for all channels; the
    idle lanes are multiply-accumulates that registers compute beyond the last output and input channel. Together they
    stand for how well the layer runs in parallel (compare the features of Tuna, arXiv 2104.14641, and of
    Neurosurgeon's regressions).
    """
    amounts = (
        work.macs,
        work.moved_bytes,
        work.weight_bytes,
        work.macs / max(work.out_channels, 1),
        work.macs * _idle(work.out_channels, OUTPUT_LANES),
        work.macs * _idle(work.in_channels, INPUT_LANES),
    )
    return np.array([1.0, *(amount / 1e6 for amount in amounts)])


def _idle(channels: int, lanes: int) -> float:
    """Idle lanes for each one used."""
    return math.ceil(channels / lanes) * lanes / channels - 1 if channels else 0.0


def graph_work(graph: LayerGraph) -> tuple[Work, ...]:
    """What each layer of a graph does, in order."""
    tensors = {tensor.name: tensor for tensor in graph.inputs}
    tensors.update((tensor.name, tensor) for layer in graph.layers for tensor in layer.outputs)
    found = []
    for layer in graph.layers:
        read = [tensors[name] for name in layer.inputs]
        kind = layer_class(layer, read)
        has_channels = kind in ("conv", "dense") and bool(read)
        found.append(
            Work(
                name=kind + _number(layer),
                macs=layer.macs,
                moved_bytes=_bytes(read) + _bytes(layer.outputs),
                weight_bytes=layer.weight_bytes,
                out_channels=_channels(layer.outputs[0], layer.op) if has_channels else 0,
                in_channels=_channels(read[0], layer.op) if has_channels else 0,
            )
        )
    return tuple(found)


def layer_class(layer: Layer, read: Iterable[TensorInfo]) -> str:
    """One of `CLASSES`, from the operator's name in any of the formats, and the shapes where the name is not enough."""
    name = layer.op.lower()
    kind = next((kind for kind, words in _BY_NAME if any(word in name for word in words)), "other")
    first = next(iter(read), None)
    if kind == "conv" and first is not None and layer.macs and layer.outputs:
        # A full convolution does some multiple of its input channels for each output value, a grouped one need not.
        each = layer.macs / max(1, math.prod(max(size, 1) for size in layer.outputs[0].shape))
        if each % max(1, _channels(first, layer.op)):
            return "depthwise"
    return kind


def _number(layer: Layer) -> str:
    """What stands behind the class."""
    dtype = layer.outputs[0].dtype if layer.outputs else "int8"
    return "-float" if dtype.startswith("float") else "-uint8" if dtype == "uint8" else ""


def _channels(tensor: TensorInfo, op: str) -> int:
    shape = tensor.shape
    if not shape:
        return 1
    return shape[1] if op.startswith("aten.") and len(shape) == 4 else shape[-1]


def _bytes(tensors: Iterable[TensorInfo]) -> int:
    fixed = (dataclasses.replace(tensor, shape=tuple(max(size, 1) for size in tensor.shape)) for tensor in tensors)
    return sum(tensor_bytes(tensor) for tensor in fixed)
