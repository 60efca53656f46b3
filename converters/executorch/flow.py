"""A quantized program as layers and the values between them, each value in the type that the runtime computes it in.

PT2E writes a quantized operator as dequantize, float operator, quantize. What travels between two of them is the INT8
tensor in the middle, so quantizing belongs to the layer that makes a value, and dequantizing to the one that reads it.
Linears that quantize their inputs on the fly read float values. Constants are not values: whoever reads one has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from converters.executorch.layers import layer_name, node_macs
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.tensor import TensorInfo

__all__ = ["Flow", "FlowLayer", "Key", "flow_graph", "is_static_quantize", "read_flow"]

Key = tuple[Any, tuple[Any, ...]]
"""A value: the node that computes it, and the scale, zero point and limits it is quantized with, () for none."""

_QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
_DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"
_ON_THE_FLY = (
    "quantized_decomposed.choose_qparams.tensor",
    "quantized_decomposed.choose_qparams_symmetric.tensor",
    "quantized_decomposed.quantize_per_tensor.tensor",
    "quantized_decomposed.dequantize_per_tensor.tensor",
    "quantized_decomposed.choose_qparams_per_token_asymmetric.default",
    "quantized_decomposed.quantize_per_token.default",
    "quantized_decomposed.dequantize_per_token.default",
)
# Computed in one with the quantized operator before them, which has no output of its own.
_FUSED = ("aten.relu", "aten.relu_", "aten.relu6", "aten.relu6_", "aten.hardtanh", "aten.hardtanh_", "aten.clamp")
_PADS = ("aten.pad", "aten.constant_pad_nd")  # without an own scale: joined with the convolution that reads them
_FUSED_NORM = ("aten.batch_norm", "aten._native_batch_norm_legit_no_training")
_CONVOLUTIONS = ("aten.conv", "aten.convolution")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLayer:
    """One operator.

    Attributes:
        reads: Values in the order in which it takes them, each once.
        makes: Values that other layers or the model's outputs read, with their names in the `LayerGraph`.
        group: Not "" where it is computed in one with others.
    """

    name: str
    node: Any
    reads: tuple[Key, ...]
    makes: tuple[tuple[Key, str], ...]
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The layers of an unlifted graph in order.

    Attributes:
        inputs: Placeholders, in call order.
        outputs: Results, in order.
        names: Of every value, inputs and outputs among them.
    """

    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    layers: tuple[FlowLayer, ...]
    names: Mapping[Key, str]


def is_static_quantize(node: Any) -> bool:
    """Whether a node quantizes with a scale known beforehand."""
    return node.op == "call_function" and str(node.target) == _QUANTIZE


def read_flow(graph: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Flow:
    """The layers of an unlifted graph (constants are get_attr nodes).

    Args:
        inputs: Names of the model's inputs, in call order.
        outputs: Names of its outputs, in order.
    """
    nodes = list(graph.graph.nodes)
    results = next(node for node in reversed(nodes) if node.op == "output").args[0]
    reader = _Reader()
    placeholders = [node for node in nodes if node.op == "placeholder"]
    names: dict[Key, str] = {(node, ()): name for node, name in zip(placeholders, inputs, strict=True)}
    for result, name in zip(results, outputs, strict=True):
        names.setdefault((result, ()), name)
    found = []
    used: set[str] = set()
    for node in nodes:
        if not reader.is_layer(node):
            continue
        name = layer_name(node)
        while name in used:
            name += "'"
        used.add(name)
        makes = tuple(reader.made(node, name, names))
        names.update(makes)
        found.append((name, node, reader.reads(node), makes))
    groups = _groups(reader, found)
    layers = tuple(
        FlowLayer(name=name, node=node, reads=reads, makes=makes, group=groups.get(name, ""))
        for name, node, reads, makes in found
    )
    return Flow(inputs=tuple(placeholders), outputs=tuple(results), layers=layers, names=names)


def flow_graph(
    flow: Flow, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], weight_bytes: Mapping[str, int]
) -> LayerGraph:
    """The `LayerGraph` of a flow.

    Args:
        weight_bytes: Bytes in the file, by layer name.
    """
    return LayerGraph(
        inputs=inputs,
        outputs=tuple(info.name for info in outputs),
        layers=tuple(
            Layer(
                name=layer.name,
                op=str(layer.node.target).removesuffix(".default"),
                inputs=tuple(dict.fromkeys(flow.names[key] for key in layer.reads)),
                outputs=tuple(_info(key, name) for key, name in layer.makes),
                weight_bytes=weight_bytes.get(layer.name, 0),
                macs=node_macs(layer.node),
                group=layer.group,
            )
            for layer in flow.layers
        ),
    )


def _info(key: Key, name: str) -> TensorInfo:
    node, parameters = key
    value = node.meta["val"]
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    dtype = str(value.dtype).rpartition(".")[2]
    if not parameters and is_static_quantize(node):
        parameters = tuple(node.args[1:])
    if not parameters and dtype in ("int8", "uint8", "int16"):
        parameters = next((user.args[1:] for user in node.users if str(user.target) == _DEQUANTIZE), ())
    elif parameters:
        dtype = str(parameters[4]).rpartition(".")[2]
    scale = (float(parameters[0]),) if parameters else ()
    zero_point = (int(parameters[1]),) if parameters else ()
    return TensorInfo(name=name, shape=shape, dtype=dtype, scale=scale, zero_point=zero_point)  # type: ignore[arg-type]


@dataclass(slots=True)
class _Reader:
    """Tells layers from constants and conversions, remembering what it has seen in order."""

    constants: set[Any] = field(default_factory=set)

    def is_layer(self, node: Any) -> bool:
        if node.op == "get_attr":
            self.constants.add(node)
            return False
        if node.op != "call_function" or _is_conversion(node) or _is_part(node):
            return False
        if not _is_tensor(node) and not _parts(node):
            return False  # sizes and assertions
        if all(arg in self.constants for arg in node.all_input_nodes):
            self.constants.add(node)
            return False
        return True

    def reads(self, node: Any) -> tuple[Key, ...]:
        return tuple(dict.fromkeys(key for arg in node.all_input_nodes for key in self.value(arg)))

    def value(self, node: Any) -> Iterator[Key]:
        """The value that a reader of `node` means, behind its conversions; none for constants and sizes."""
        if node in self.constants or not (_is_tensor(node) or _is_conversion(node) or _is_part(node)):
            return
        if is_static_quantize(node):
            source = node.args[0]
            if source.op == "placeholder":  # an input is quantized by whoever reads it
                yield source, ()
            elif source not in self.constants:
                yield source, tuple(node.args[1:])
        elif _is_conversion(node):
            for arg in node.all_input_nodes:
                yield from self.value(arg)
        elif node.op == "placeholder" or node.op == "call_function":
            yield node, ()

    def made(self, node: Any, name: str, names: Mapping[Key, str]) -> Iterator[tuple[Key, str]]:
        """The values that a layer makes: what is read in float, what is read quantized, and the model's outputs."""
        tensors = _parts(node) or [node]
        for place, tensor in enumerate(tensors):
            keys: dict[Key, None] = {}
            for user in tensor.users:
                if is_static_quantize(user):
                    keys |= dict.fromkeys(_read_quantized(tensor, user, names))
                elif user.op == "output" or _is_tensor(user) or _parts(user) or _is_conversion(user):
                    keys[tensor, ()] = None
            for number, key in enumerate(keys):
                suffix = f"#{number + 1}" if number else ""
                yield key, names.get(key, f"{name}:{place}{suffix}")


def _read_quantized(tensor: Any, quantize: Any, names: Mapping[Key, str]) -> Iterator[Key]:
    """The quantized value itself where a layer reads it, and the model's outputs that are made of it."""
    readers = [user for user in quantize.users if user.op != "output"]
    if any((user, ()) not in names or any(each.op != "output" for each in user.users) for user in readers):
        yield tensor, tuple(quantize.args[1:])
    for user in (quantize, *quantize.users):
        if (user, ()) in names:
            yield user, ()


def _is_tensor(node: Any) -> bool:
    return hasattr(node.meta.get("val"), "shape")


def _is_conversion(node: Any) -> bool:
    """A change between float and quantized values, or the choice of a scale for one."""
    if node.op != "call_function":
        return False
    target = str(node.target)
    if target in (_QUANTIZE, _DEQUANTIZE) or target in _ON_THE_FLY:
        return True
    return "getitem" in target and str(getattr(node.args[0], "target", "")) in _ON_THE_FLY


def _is_part(node: Any) -> bool:
    """One of several results of an operator."""
    return node.op == "call_function" and "getitem" in str(node.target)


def _parts(node: Any) -> list[Any]:
    if isinstance(node.meta.get("val"), (tuple, list)):
        return sorted((user for user in node.users if _is_part(user)), key=lambda user: user.args[1])
    return []


def _groups(reader: _Reader, layers: list[tuple[str, Any, tuple[Key, ...], Any]]) -> dict[str, str]:
    """Group by layer name: an activation with the quantized operator before it, a pad or norm with its convolution."""
    names = {node: name for name, node, _, _ in layers}
    groups: dict[str, str] = {}
    for name, node, _, _ in layers:
        source: Any = node.args[0] if node.args else None
        if source not in names:
            continue
        target = str(node.target)
        is_fusable = target.rpartition(".")[0] in _FUSED or str(source.target).startswith(_PADS)
        is_activation = is_fusable and _is_quantized_inside(source)
        is_norm = target.startswith(_FUSED_NORM) and str(source.target).startswith(_CONVOLUTIONS)
        if is_activation or is_norm:
            first = groups.get(names[source], names[source])
            groups[names[source]] = groups[name] = first
    return groups


def _is_quantized_inside(node: Any) -> bool:
    """Whether an operator reads INT8 values and gives float ones, so that only what follows quantizes its result."""
    reads_int8 = any(str(arg.target) == _DEQUANTIZE for arg in node.all_input_nodes)
    return reads_int8 and not any(is_static_quantize(user) for user in node.users)
