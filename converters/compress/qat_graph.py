"""A captured CNN as a graph that trains under quantization: folded batch norms, fake-quantized weights, activations.

Batch norms are folded with their long-term statistics; while they are not frozen yet, batches are normalized by their
own (Krishnamoorthi, arXiv:1806.08342, section 3.2.2), which is what keeps the statistics up to date.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

from converters.compress.qat_quantizers import activation_class, learned_step, weight_limits, weight_start
from converters.compress.trained_layers import TrainedLayers
from converters.executorch.layers import layer_name
from converters.executorch.program import attribute
from converters.executorch.rewrites import rewrite
from converters.executorch.rounding import columns_of
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

__all__ = ["QatNet", "make_qat", "put_weights"]

LEAST_FACTOR = 1e-6
MOST_PLACE = 0.49  # of a step, that a weight may lie from the integer it starts as
SMALLEST_SIZE = 1e-12
LAYERS = ("aten.conv1d.default", "aten.conv2d.default", "aten.linear.default")
RECTIFIERS = ("relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_min")
# They only move or choose values, or have a scale that their kernel fixes.
PASSING = (
    *RECTIFIERS, "max_pool2d", "max_pool1d", "flatten", "view", "reshape", "permute", "transpose", "squeeze",
    "unsqueeze", "dropout", "contiguous", "clone", "alias", "detach", "select", "slice", "pad", "constant_pad_nd",
    "softmax", "sigmoid", "log_softmax", "tanh", "cat", "getitem", "_assert_tensor_metadata", "sym_size", "to",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class QatNet:
    """A graph in training.

    Attributes:
        graph: The torch module; takes and gives what the captured program does.
        layers: Its fake-quantized layers, by layer name.
        ranges: Its fake-quantized activations, by the name of the input or layer.
    """

    graph: Any
    layers: dict[str, Any]
    ranges: dict[str, Any]
    bits: int

    def freeze_norms(self) -> None:
        """From now on batch norms have their long-term statistics."""
        for layer in self.layers.values():
            layer.is_frozen = True

    def freeze_averages(self) -> None:
        """From now on moving averages of ranges stand still."""
        for activation in self.ranges.values():
            activation.is_frozen = True

    def trained(self) -> TrainedLayers:
        """The scales of the moment."""
        return TrainedLayers(
            bits=self.bits,
            weight_scales={
                name: tuple(float(s) for s in layer.scale_now().detach()) for name, layer in self.layers.items()
            },
            activations={
                name: (float(scale), int(zero))
                for name, (scale, zero) in ((n, activation.parameters_now()) for n, activation in self.ranges.items())
            },
        )


def make_qat(graph: Any, inputs: tuple[str, ...], *, bits: int, ranges: Literal["learned", "moving-average"]) -> QatNet:
    """Turn a float graph into one that trains under quantization.

    Args:
        graph: As `load_graph` gives it; it is consumed.
        inputs: Names of the program's inputs, in call order.
        bits: Of weights: 4 or 8.

    Raises:
        BadInput: The graph has no convolution and no fully connected layer, or weights that several layers share.
    """
    norms = _norms(graph)
    rewrite(graph)
    found = _weighted(graph)
    if not found:
        raise BadInput("the model has no convolution and no fully connected layer that could be trained.")
    layers = {}
    for node in found:
        name = layer_name(node)
        layers[name] = module = _layer_class()(graph, node, bits, norms.get(name))
        where = f"qat_layer_{len(layers)}"
        graph.add_submodule(where, module)
        with graph.graph.inserting_before(node):
            made = graph.graph.call_module(where, (node.args[0],))
        made.meta = {**node.meta}
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)
    activations = _insert_ranges(graph, inputs, learned=ranges == "learned")
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    for module in layers.values():
        for parameter in module.parameters():
            parameter.requires_grad_(True)
    for activation in activations.values():
        for parameter in activation.parameters():
            parameter.requires_grad_(activation.learned)
    return QatNet(graph=graph, layers=layers, ranges=activations, bits=bits)


def put_weights(graph: Any, net: QatNet) -> None:
    """Give a float graph, which is rewritten in place, the weights and biases that training found."""
    torch = require("torch", extra="run-executorch")
    rewrite(graph)
    for node in _weighted(graph):
        weight, bias = net.layers[layer_name(node)].folded()
        with torch.no_grad():
            _set(graph, str(node.args[1].target), weight)
        where = node.args[2] if len(node.args) > 2 else None
        if where is not None:
            _set(graph, str(where.target), bias)
        elif bool(bias.any()):
            raise AssertionError("a layer without a bias was trained without one")
    graph.recompile()


def _set(graph: Any, path: str, values: Any) -> None:
    torch = require("torch", extra="run-executorch")
    owner, _, leaf = path.rpartition(".")
    home = attribute(graph, owner) if owner else graph
    if leaf in home._parameters:
        home._parameters[leaf] = torch.nn.Parameter(values.detach().clone(), requires_grad=False)
    else:
        setattr(home, leaf, values.detach().clone())


def _norms(graph: Any) -> dict[str, Any]:
    """Weights before folding and the batch norm behind, by the name of the layer that it will be folded into."""
    torch = require("torch", extra="run-executorch")
    found = {}
    for node in graph.graph.nodes:
        layer = node.args[0] if node.target is torch.ops.aten.batch_norm.default else None
        if layer is None or str(getattr(layer, "target", "")) not in LAYERS:
            continue
        constants = [None if arg is None else attribute(graph, arg.target) for arg in node.args[1:5]]
        if len(layer.users) == 1 and layer.args[1].op == "get_attr" and constants[2] is not None:
            bias = layer.args[2] if len(layer.args) > 2 and layer.args[2] is not None else None
            found[layer_name(layer)] = {
                "weight": attribute(graph, layer.args[1].target),
                "bias": None if bias is None else attribute(graph, bias.target),
                "norm": constants,
                "epsilon": float(node.args[7]),
            }
    return found


def _weighted(graph: Any) -> list[Any]:
    found = [
        node
        for node in graph.graph.nodes
        if str(node.target) in LAYERS and not node.kwargs and getattr(node.args[1], "op", "") == "get_attr"
    ]
    names = [str(node.args[1].target) for node in found]
    shared = sorted({name for name in names if names.count(name) > 1})
    if shared:
        raise BadInput(f"{', '.join(shared)}: several layers share these weights, which cannot be trained like this.")
    return found


def _insert_ranges(graph: Any, inputs: tuple[str, ...], *, learned: bool) -> dict[str, Any]:
    places: dict[str, Any] = {}
    given = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node, name in zip(given, inputs, strict=True):
        if _is_float(node):
            places[name] = node
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        is_layer = node.op == "call_module" and str(node.target).startswith("qat_layer_")
        if not is_layer and (node.op != "call_function" or _kind(node) in PASSING or not _is_float(node)):
            continue
        if not any(_is_float(arg) and arg.op != "get_attr" for arg in node.all_input_nodes):
            continue  # made of constants alone
        users = list(node.users)
        is_rectified = len(users) == 1 and users[0].op == "call_function" and _kind(users[0]) in RECTIFIERS
        places[layer_name(node)] = users[0] if is_rectified else node
    found = {}
    for number, (name, node) in enumerate(places.items()):
        found[name] = activation_class()(learned=learned)
        where = f"qat_range_{number}"
        assert where not in modules
        graph.add_submodule(where, found[name])
        with graph.graph.inserting_after(node):
            made = graph.graph.call_module(where, (node,))
        node.replace_all_uses_with(made, delete_user_cb=lambda user, made=made: user is not made)
    return found


def _kind(node: Any) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.split("::")[-1] if schema is not None else str(getattr(node.target, "__name__", node.target))


def _is_float(node: Any) -> bool:
    value = node.meta.get("val")
    return value is not None and getattr(value, "is_floating_point", lambda: False)()


@functools.cache
def _layer_class() -> Any:
    torch = require("torch", extra="run-executorch")
    aten = torch.ops.aten

    class QatLayer(torch.nn.Module):  # type: ignore[misc,name-defined]
        """A convolution or fully connected layer with the batch norm behind it, fake-quantized."""

        def __init__(self, graph: Any, node: Any, bits: int, norm: Any) -> None:
            super().__init__()
            self.target, self.rest, self.bits = node.target, tuple(node.args[3:]), bits
            folded = attribute(graph, str(node.args[1].target)).detach().clone()
            has_bias = len(node.args) > 2 and node.args[2] is not None
            bias = attribute(graph, str(node.args[2].target)).detach().clone() if has_bias else None
            self.has_bias, self.is_frozen, self.has_norm = has_bias, True, False
            if norm is not None:
                gamma, beta, mean, variance = (None if v is None else v.detach().clone() for v in norm["norm"])
                gamma = torch.ones_like(mean) if gamma is None else gamma
                if bool((gamma.abs() * torch.rsqrt(variance + norm["epsilon"]) > LEAST_FACTOR).all()):
                    self.has_norm, self.is_frozen, self.epsilon = True, False, norm["epsilon"]
                    self.gamma = torch.nn.Parameter(gamma)
                    self.beta = torch.nn.Parameter(torch.zeros_like(mean) if beta is None else beta)
                    self.register_buffer("mean", mean)
                    self.register_buffer("variance", variance)
                    # The layer's own bias vanishes in the mean.
                    if norm["bias"] is not None:
                        self.mean -= norm["bias"].detach()
            start = norm["weight"].detach().clone() if norm is not None and self.has_norm else folded
            # Everything is trained relative to its size: folded weights of neighbours may differ a thousandfold.
            self.register_buffer("size", start.square().mean().sqrt().clamp(min=SMALLEST_SIZE))
            self.unit = torch.nn.Parameter(start / self.size)
            if bias is not None and not self.has_norm:
                self.register_buffer("bias_size", bias.square().mean().sqrt().clamp(min=SMALLEST_SIZE))
                self.bias_unit = torch.nn.Parameter(bias / self.bias_size)
            self.columns = columns_of(node, tuple(folded.shape))
            self.register_buffer("scale_start", weight_start(folded, bits))
            self.scale_log = torch.nn.Parameter(torch.zeros_like(self.scale_start))
            self.is_quantizing = True

        @property
        def weight(self) -> Any:
            return self.unit * self.size

        @property
        def bias(self) -> Any:
            return self.bias_unit * self.bias_size if self.has_bias else None

        def factor(self) -> Any:
            return self.gamma * torch.rsqrt(self.variance + self.epsilon)

        def scale_now(self) -> Any:
            return self.scale_start * self.scale_log.exp()

        def wide(self) -> Any:
            """What folding the batch norm multiplies the weights of each output channel by."""
            factor = self.factor() if self.has_norm else torch.ones(len(self.unit))
            return factor.reshape(-1, *[1] * (self.unit.dim() - 1))

        def folded_float(self) -> Any:
            """Weight [out, ...] with the batch norm in it, before it is quantized."""
            with torch.no_grad():
                return self.weight * self.wide()

        def begin(self, scales: Any, stored: Any, shift: Any) -> None:
            """Start from integers [out, ...] under scales [out], which would shift the mean of each output channel.

            Weights keep their place within a step of these integers, so that training may still move them.
            """
            low, high = weight_limits(self.bits)
            with torch.no_grad():
                by_channel = scales.reshape(-1, *[1] * (self.unit.dim() - 1))
                places = self.folded_float() / by_channel
                places = torch.minimum(torch.maximum(places, stored - MOST_PLACE), stored + MOST_PLACE)
                self.scale_start.copy_(scales)
                self.unit.copy_(places.clamp(low, high) * by_channel / self.wide() / self.size)
                if self.has_norm:
                    self.mean += shift / self.factor()
                elif self.has_bias:
                    self.bias_unit -= shift / self.bias_size

        def quantized(self, weight: Any) -> Any:
            return learned_step(weight, self.scale_now(), self.bits) if self.is_quantizing else weight

        def folded(self) -> tuple[Any, Any]:
            """Weight on its grid and bias, as they are exported."""
            with torch.no_grad():
                if not self.has_norm:
                    zero = torch.zeros(len(self.unit))
                    return self.quantized(self.weight), self.bias if self.has_bias else zero
                return self.quantized(self.weight * self.wide()), self.beta - self.mean * self.factor()

        def call(self, values: Any, weight: Any, bias: Any) -> Any:
            if self.target is aten.linear.default:
                return torch.nn.functional.linear(values, weight, bias)
            return self.target(values, weight, bias, *self.rest)

        def forward(self, values: Any) -> Any:
            if not self.has_norm:
                return self.call(values, self.quantized(self.weight), self.bias)
            factor = self.factor()
            weight = self.quantized(self.weight * self.wide())
            if self.is_frozen or not self.training:
                return self.call(values, weight, self.beta - self.mean * factor)
            axis = [1, -1, *[1] * (self.unit.dim() - 2)]
            plain = self.call(values, weight, None) / factor.reshape(axis)
            return torch.nn.functional.batch_norm(
                plain, self.mean, self.variance, self.gamma, self.beta, training=True, momentum=0.01, eps=self.epsilon
            )

    return QatLayer
