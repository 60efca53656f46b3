"""Range equalisation on an exported float graph: its channels, their statistics, and the scaled weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from converters.executorch.layers import layer_name
from converters.executorch.program import attribute, set_attribute
from converters.passes.channel_graph import ChannelGraph, Reader, Statistics
from converters.passes.channel_statistics import ChannelObserver
from converters.passes.equalise import Factors, choose_factors
from converters.passes.kept_changes import LayerFactors
from edge_deploy.core.layer_rule import WeightScale

__all__ = ["apply_factors", "equalise_graph"]

_LAYERS = ("aten.conv1d.default", "aten.conv2d.default", "aten.linear.default")
# Positive factors pass through, channel by channel.
_PASSING = (
    "aten.adaptive_avg_pool2d.default",
    "aten.avg_pool2d.default",
    "aten.contiguous.default",
    "aten.dropout.default",
    "aten.leaky_relu.default",
    "aten.leaky_relu_.default",
    "aten.max_pool2d.default",
    "aten.relu.default",
    "aten.relu_.default",
)
_CLIPS = (
    "aten.clamp.default",
    "aten.hardtanh.default",
    "aten.hardtanh_.default",
    "aten.relu6.default",
    "aten.relu6_.default",
)
_SUMS = ("aten.add.Tensor", "aten.sub.Tensor", "aten.add_.Tensor", "aten.maximum.default", "aten.minimum.default")
_PADS = ("aten.pad.default", "aten.constant_pad_nd.default")
_FLATTENINGS = ("aten.flatten.using_ints", "aten.reshape.default", "aten.view.default")


def equalise_graph(
    graph: Any,
    batches: Iterable[tuple[Any, ...]],
    weight_bits: Mapping[str, int],
    *,
    weight_scale: WeightScale = "channel",
) -> tuple[Factors, dict[str, LayerFactors]]:
    """Scale the channels of an unlifted float graph, in place; its outputs stay what they were but for rounding.

    Where a channel is clipped at 6, values beyond those of calibration may be clipped earlier.

    Args:
        graph: With batch norms folded.
        weight_bits: By layer name, of the layers that will be quantized.
        weight_scale: Of their weights.

    Returns:
        The factors by node, and as layers take them.
    """
    observers: dict[Any, ChannelObserver] = {}
    shapes: dict[Any, tuple[int, ...]] = {}
    for batch in batches:
        for node, value in _values(graph, batch):
            shape = tuple(value.shape)
            shapes.setdefault(node, shape)
            if len(shape) >= 2:
                observers.setdefault(node, ChannelObserver(channels=shape[1])).see(value.movedim(1, -1).numpy())
    channels = _read_channels(graph, shapes)
    statistics: dict[Hashable, Statistics] = {node: seen.statistics() for node, seen in observers.items()}
    norms: dict[Hashable, np.ndarray] = {
        reader.result: np.square(reader.weights).sum(axis=(2, 3)).reshape(-1) for reader in channels.readers
    }
    factors = choose_factors(channels, statistics, weight_bits=weight_bits, norms=norms, weight_scale=weight_scale)
    by_layer = {
        reader.name: LayerFactors(
            rows=factors.by_tensor.get(reader.result), columns=factors.by_tensor.get(reader.tensor)
        )
        for reader in channels.readers
        if reader.result in factors.by_tensor or reader.tensor in factors.by_tensor
    }
    apply_factors(graph, by_layer)
    return factors, by_layer


def apply_factors(graph: Any, factors: Mapping[str, LayerFactors]) -> None:
    """Rows over what a layer makes, columns times what it reads; in place."""
    import torch

    for node in list(graph.graph.nodes):
        if node.op != "call_function" or str(node.target) not in _LAYERS or layer_name(node) not in factors:
            continue
        found = factors[layer_name(node)]
        old = attribute(graph, str(node.args[1].target)).detach()
        is_linear = str(node.target) == "aten.linear.default"
        groups = int(node.args[6]) if not is_linear and len(node.args) > 6 else 1
        values = old.double().numpy().reshape(groups, old.shape[0] // groups, old.shape[1], -1)
        if found.columns is not None:
            values = values * found.columns.reshape(groups, 1, old.shape[1], 1)
        if found.rows is not None:
            values = values / found.rows.reshape(groups, -1, 1, 1)
            bias = node.args[2] if len(node.args) > 2 else None
            if bias is not None:
                had = attribute(graph, str(bias.target)).detach()
                _replace(graph, bias, torch.from_numpy(had.double().numpy() / found.rows).to(had.dtype))
        _replace(graph, node.args[1], torch.from_numpy(values.reshape(old.shape)).to(old.dtype).contiguous())
    graph.recompile()


def _replace(graph: Any, node: Any, value: Any) -> None:
    """Let a constant's node read another value; it is read by one layer alone."""
    node.target = set_attribute(graph, str(node.target), "equalised", value)


def _values(graph: Any, batch: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    """Every float tensor that operators compute from the batch."""
    import torch

    found: list[tuple[Any, Any]] = []

    class Recorder(torch.fx.Interpreter):  # type: ignore[misc]  # its types are not read, see pyproject.toml
        def run_node(self, node: Any) -> Any:
            value = super().run_node(node)
            is_made = node.op in ("call_function", "placeholder") and isinstance(value, torch.Tensor)
            if is_made and value.is_floating_point():
                found.append((node, value.detach().clone()))
            return value

    with torch.no_grad():
        Recorder(graph).run(*batch)
    return found


def _read_channels(graph: Any, shapes: Mapping[Any, tuple[int, ...]]) -> ChannelGraph:
    """The channels of a graph; tensors are known by their node."""
    found = ChannelGraph()
    uses = Counter(
        str(arg.target) for node in graph.graph.nodes for arg in node.all_input_nodes if arg.op == "get_attr"
    )
    for node, shape in shapes.items():
        found.add(node, shape[1] if len(shape) >= 2 else 1)
        if node.op == "placeholder" or len(shape) < 2:
            found.freeze(node)
    for node in graph.graph.nodes:
        given = [arg for arg in node.all_input_nodes if arg in shapes]
        if node.op == "output":
            found.freeze(*given)
        elif node in shapes and node.op == "call_function":
            _read(found, node, given, shapes, uses, graph)
        elif (
            given and node.op == "call_function" and not str(node.target).startswith(("aten.sym_size", "aten._assert"))
        ):
            found.freeze(*given)
    return found


def _read(
    found: ChannelGraph,
    node: Any,
    given: list[Any],
    shapes: Mapping[Any, tuple[int, ...]],
    uses: Mapping[str, int],
    graph: Any,
) -> None:
    kind, shape = str(node.target), shapes[node]
    if kind in _LAYERS and len(given) == 1 and _can_change(node, uses):
        _read_layer(found, node, given[0], shapes, graph)
    elif kind in (*_PASSING, *_CLIPS) and len(given) == 1 and given[0] is node.args[0]:
        found.tie(given[0], node)
        if kind in _CLIPS:
            _note_clip(found, node)
    elif kind in _SUMS and len(given) == 2 and all(shapes[arg][:2] == shape[:2] for arg in given):
        for arg in given:
            found.tie(arg, node)
    elif kind == "aten.mul.Tensor" and len(given) == 1 and shapes[given[0]] == shape:
        found.tie(given[0], node)
    elif kind == "aten.cat.default":
        axis = int(node.args[1]) if len(node.args) > 1 else 0
        parts = list(node.args[0])
        if axis % len(shape) == 1 and all(part in shapes for part in parts):
            found.join(parts, node)
        else:
            found.freeze(*given, node)
    elif len(given) == 1 and (_keeps_channels(node, len(shapes[given[0]])) or _pads_with_zeros(node, len(shape))):
        found.tie(given[0], node)
    elif kind in _FLATTENINGS and len(given) == 1:
        before = shapes[given[0]]
        if len(shape) == 2 and shape[0] == before[0] and math.prod(before[1:]) == shape[1]:
            found.spread(given[0], node, channels_last=False)
        else:
            found.freeze(given[0], node)
    else:
        found.freeze(*given, node)


def _keeps_channels(node: Any, rank: int) -> bool:
    """A mean over other axes than those of batch and channels."""
    return str(node.target) == "aten.mean.dim" and not {int(axis) % rank for axis in node.args[1]} & {0, 1}


def _pads_with_zeros(node: Any, rank: int) -> bool:
    """Zeros at borders that are not those of the channels."""
    if str(node.target) not in _PADS:
        return False
    mode = node.args[2] if str(node.target) == "aten.pad.default" and len(node.args) > 2 else "constant"
    value = node.args[-1] if isinstance(node.args[-1], (int, float)) else 0
    return mode == "constant" and value == 0 and len(node.args[1]) <= 2 * (rank - 2) and not node.kwargs.get("value")


def _note_clip(found: ChannelGraph, node: Any) -> None:
    if "relu6" in str(node.target):
        low, high = 0.0, 6.0
    else:
        bounds = (*node.args[1:3], None, None)[:2]
        if node.kwargs or not all(isinstance(bound, (int, float)) for bound in bounds):
            found.freeze(node)
            return
        low, high = float(bounds[0]), float(bounds[1])
    if low != 0.0 or high <= 0.0:
        found.freeze(node)
    else:
        found.bounds[node] = high


def _can_change(node: Any, uses: Mapping[str, int]) -> bool:
    stored = [arg for arg in node.args[1:3] if arg is not None]
    return not node.kwargs and all(
        getattr(arg, "op", "") == "get_attr" and uses[str(arg.target)] == 1 for arg in stored
    )


def _read_layer(found: ChannelGraph, node: Any, data: Any, shapes: Mapping[Any, tuple[int, ...]], graph: Any) -> None:
    weights = attribute(graph, str(node.args[1].target)).detach().double().numpy()
    is_linear = str(node.target) == "aten.linear.default"
    groups = int(node.args[6]) if not is_linear and len(node.args) > 6 else 1
    arranged = weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1)
    if (is_linear and len(shapes[data]) != 2) or groups * weights.shape[1] != found.channels(data):
        found.freeze(data, node)
        return
    slots = np.arange(found.channels(data))
    found.readers.append(Reader(name=layer_name(node), tensor=data, result=node, weights=arranged, slots=slots))
    found.makers[node] = layer_name(node)
