"""The layers of a Keras functional model as a `LayerGraph`: float nets are cut and counted as papers do."""

from __future__ import annotations

import math
from typing import Any

from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.tensor import TensorInfo

__all__ = ["keras_graph"]

_FLOAT_BYTES = 4


def keras_graph(model: Any, *, batch: int = 1) -> LayerGraph:
    """The graph of a functional or sequential Keras 3 model, in the order of `model.layers`.

    Args:
        model: With sizes that are fixed but for the batch.

    Raises:
        BadInput: The model has not been built, or leaves a size other than the batch open.
        Unsupported: A layer is called more than once.
    """
    if not getattr(model, "built", False) or not getattr(model, "inputs", None):
        raise BadInput(f"model {model.name}: has no graph of layers; build it with fixed input sizes.")
    names: dict[int, str] = {}
    layers = []
    inputs = [_tensor(tensor, tensor.name, batch) for tensor in model.inputs]
    names |= {id(tensor): info.name for tensor, info in zip(model.inputs, inputs, strict=True)}
    for layer in model.layers:
        if type(layer).__name__ == "InputLayer":
            continue
        node = _only_call(layer, names)
        outputs = [
            _tensor(tensor, layer.name if number == 0 else f"{layer.name}:{number}", batch)
            for number, tensor in enumerate(node.output_tensors)
        ]
        layers.append(
            Layer(
                name=layer.name,
                op=type(layer).__name__,
                inputs=tuple(names[id(tensor)] for tensor in node.input_tensors),
                outputs=tuple(outputs),
                weight_bytes=_FLOAT_BYTES * sum(math.prod(weight.shape) for weight in layer.weights),
                macs=_macs(layer, node, batch),
            )
        )
        names |= {id(tensor): info.name for tensor, info in zip(node.output_tensors, outputs, strict=True)}
    return LayerGraph(
        inputs=tuple(inputs), outputs=tuple(names[id(tensor)] for tensor in model.outputs), layers=tuple(layers)
    )


def _only_call(layer: Any, known: dict[int, str]) -> Any:
    """The call of the layer whose inputs the model makes; a layer may have been called outside of it as well."""
    calls = [
        node
        for node in layer._inbound_nodes
        if all(id(tensor) in known for tensor in node.input_tensors) and node.input_tensors
    ]
    if len(calls) != 1:
        raise Unsupported(f"layer {layer.name} ({type(layer).__name__}): is called {len(calls)} times; must be once.")
    return calls[0]


def _tensor(tensor: Any, name: str, batch: int) -> TensorInfo:
    shape = (batch, *tensor.shape[1:])
    if any(size is None for size in shape):
        raise BadInput(f"tensor {name}: shape {tensor.shape}: only the batch may be open; give the input a fixed size.")
    return TensorInfo(name=name, shape=tuple(int(size) for size in shape), dtype=str(tensor.dtype))  # type: ignore[arg-type]  # a type that TensorInfo knows, or its users refuse it


def _macs(layer: Any, node: Any, batch: int) -> int:
    """Multiply-accumulates of the layers that have a kernel; 0 for all others."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    kind = type(layer).__name__
    made = [int(size) for size in node.output_tensors[0].shape[1:]]
    held = [int(size) for size in kernel.shape]
    if kind == "Dense":
        return batch * math.prod(made[:-1]) * math.prod(held)
    if kind.startswith("DepthwiseConv"):
        return batch * math.prod(made) * math.prod(held[:-2])
    if kind.startswith("Conv") and "Transpose" not in kind:
        places = made[1:] if getattr(layer, "data_format", "") == "channels_first" else made[:-1]
        return batch * math.prod(places) * math.prod(held)
    return 0
