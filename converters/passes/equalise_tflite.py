"""Range equalisation on a float TFLite graph: its channels, their statistics, and the scaled weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from converters.passes.channel_graph import ChannelGraph, Reader, Statistics
from converters.passes.channel_statistics import ChannelObserver
from converters.passes.equalise import Factors, choose_factors
from converters.passes.kept_changes import LayerFactors
from converters.tflite.flatbuffer import schema, set_constant
from converters.tflite.operators import OPERATORS
from converters.tflite.structure import Node, View, twin_of, views
from edge_deploy.core.layer_rule import WeightScale

__all__ = ["apply_factors", "equalise_model", "read_channels"]

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# Positive factors pass through, channel by channel.
PASSING = (
    "AVERAGE_POOL_2D",
    "LEAKY_RELU",
    "MAX_POOL_2D",
    "PRELU",
    "RELU",
    "RELU6",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
)
SUMS = ("ADD", "SUB", "MAXIMUM", "MINIMUM")
CLIPPED_AT = 6.0


def equalise_model(
    model: Any,
    runs: Iterable[Callable[[int], np.ndarray]],
    weight_bits: Mapping[str, int],
    *,
    weight_scale: WeightScale = "channel",
) -> tuple[Factors, dict[str, LayerFactors]]:
    """Scale the channels of a float model, in place; its outputs stay what they were but for rounding.

    Where a channel is clipped at 6, values beyond those of calibration may be clipped earlier.

    Args:
        model: As `converters.tflite.quantizer.prepare` gives it.
        runs: After each inference of the first signature a function that reads a tensor by index.
        weight_bits: By layer name, of the layers that will be quantized.
        weight_scale: Of the scales of their weights.

    Returns:
        The factors by tensor, and as layers take them.
    """
    graphs = views(model)
    first = graphs[int(model.signatureDefs[0].subgraphIndex)]
    channels = read_channels(first)
    wanted = {reader.tensor for reader in channels.readers} | {reader.result for reader in channels.readers}
    wanted |= set(channels.bounds)
    observers = {tensor: ChannelObserver(channels=channels.channels(tensor)) for tensor in wanted}
    for read in runs:
        for tensor, observer in observers.items():
            observer.see(read(int(tensor)))  # type: ignore[call-overload]  # keys of this adapter are indices
    statistics: dict[Hashable, Statistics] = {
        t: observer.statistics() for t, observer in observers.items() if observer.seen
    }
    norms: dict[Hashable, np.ndarray] = {
        node.outputs[0]: _norms(first, node)
        for node in first.nodes
        if channels.makers.get(node.outputs[0]) == node.layer
    }
    factors = choose_factors(channels, statistics, weight_bits=weight_bits, norms=norms, weight_scale=weight_scale)
    by_layer = {
        reader.name: LayerFactors(
            rows=factors.by_tensor.get(reader.result),
            columns=None if reader.tensor not in factors.by_tensor else factors.by_tensor[reader.tensor][reader.slots],
        )
        for reader in channels.readers
        if reader.result in factors.by_tensor or reader.tensor in factors.by_tensor
    }
    apply_factors(model, by_layer)
    return factors, by_layer


def read_channels(view: View) -> ChannelGraph:
    """The channels of one subgraph; tensors are known by their index."""
    graph = ChannelGraph()
    uses = Counter(int(view.tensor(i).buffer) for node in view.nodes for i in set(node.inputs) if view.is_constant(i))
    for index in range(len(view.graph.tensors)):
        if view.is_activation(index):
            graph.add(index, _shape(view, index)[-1] if _shape(view, index) else 1)
    for node in view.nodes:
        if any(view.is_activation(i) for i in (*node.inputs, *node.outputs)):
            _read(graph, view, node, uses)
    graph.freeze(*(int(i) for i in (*view.graph.inputs, *view.graph.outputs)))
    made = {output for node in view.nodes for output in node.outputs}
    graph.freeze(*(i for i in range(len(view.graph.tensors)) if view.is_activation(i) and i not in made))
    return graph


def _shape(view: View, index: int) -> tuple[int, ...]:
    shape = view.tensor(index).shape
    return tuple(int(size) for size in (shape if shape is not None else ()))


def _read(graph: ChannelGraph, view: View, node: Node, uses: Mapping[int, int]) -> None:
    variable = [i for i in node.inputs if view.is_activation(i)]
    made = [i for i in node.outputs if view.is_activation(i)]
    if node.kind in LAYERS and len(variable) == len(made) == 1 and _can_change(view, node, uses):
        _read_layer(graph, view, node)
    elif node.kind == "CONCATENATION" and len(variable) == len(node.inputs) and not _fused(node):
        axis = int(node.operator.builtinOptions.axis) % max(len(_shape(view, made[0])), 1)
        if axis == len(_shape(view, made[0])) - 1:
            graph.join(variable, made[0])
        else:
            for part in variable:
                graph.tie(part, made[0])
    elif _passes(view, node, variable, made):
        for each in variable:
            graph.tie(each, made[0])
        _note_clip(graph, node, made[0], always=node.kind == "RELU6")
    elif node.kind == "RESHAPE" and len(variable) == len(made) == 1:
        _read_reshape(graph, view, variable[0], made[0])
    else:
        graph.freeze(*variable, *made)


def _fused(node: Node) -> int:
    return int(getattr(node.operator.builtinOptions, "fusedActivationFunction", 0) or 0)


def _note_clip(graph: ChannelGraph, node: Node, made: int, *, always: bool = False) -> None:
    """What the operator's own activation does to factors of its result."""
    kinds = schema().ActivationFunctionType
    fused = _fused(node)
    if fused == kinds.RELU6 or always:
        graph.bounds[made] = CLIPPED_AT
    elif fused not in (kinds.NONE, kinds.RELU):
        graph.freeze(made)


def _can_change(view: View, node: Node, uses: Mapping[int, int]) -> bool:
    """Whether weights and bias are stored and belong to this operator alone."""
    rule = OPERATORS[node.kind]
    if node.inputs[rule.data] < 0 or not view.is_activation(node.inputs[rule.data]):
        return False
    stored = [
        node.inputs[slot] for slot in (rule.weight, rule.bias) if slot < len(node.inputs) and node.inputs[slot] >= 0
    ]
    return all(view.is_constant(i) and view.is_float(i) and uses[int(view.tensor(i).buffer)] == 1 for i in stored)


def _read_layer(graph: ChannelGraph, view: View, node: Node) -> None:
    data, weights = node.inputs[0], view.values(node.inputs[1])
    channels, made = graph.channels(data), node.outputs[0]
    outputs = weights.shape[OPERATORS[node.kind].axis]
    if node.kind == "DEPTHWISE_CONV_2D":
        arranged = weights.reshape(-1, channels, outputs // channels).transpose(1, 2, 0)[:, :, None, :]
        slots = np.arange(channels)
    elif node.kind == "CONV_2D":
        groups = channels // weights.shape[3]
        arranged = weights.reshape(groups, outputs // groups, -1, weights.shape[3]).swapaxes(2, 3)
        slots = np.arange(channels)
    else:
        columns = weights.shape[1]
        arranged = weights.reshape(1, outputs, columns, 1)
        # A flattened image: pixel after pixel, each with all its channels.
        slots = np.tile(np.arange(channels), columns // channels) if columns % channels == 0 else np.zeros(0, int)
    if len(slots) != arranged.shape[0] * arranged.shape[2] or outputs != graph.channels(made):
        graph.freeze(data, made)
        return
    graph.readers.append(
        Reader(name=node.layer, tensor=data, result=made, weights=np.asarray(arranged, np.float64), slots=slots)
    )
    graph.makers[made] = node.layer
    _note_clip(graph, node, made)


def _passes(view: View, node: Node, variable: list[int], made: list[int]) -> bool:
    """Whether a positive factor of an input's channel is one of the result's."""
    if len(made) != 1 or not variable:
        return False
    last = _shape(view, made[0])[-1:]
    if node.kind in PASSING:
        return len(variable) == 1
    if node.kind in SUMS:
        return len(variable) == len(node.inputs) and all(_shape(view, i)[-1:] == last for i in variable)
    if node.kind == "MUL":
        return len(variable) == 1 and _shape(view, variable[0])[-1:] == last
    if node.kind == "MEAN":
        rank = len(_shape(view, variable[0]))
        axes = view.values(node.inputs[1]) if view.is_constant(node.inputs[1]) else np.array([-1])
        return len(variable) == 1 and rank - 1 not in {int(axis) % rank for axis in axes.reshape(-1)}
    if node.kind == "PAD":
        is_known = view.is_constant(node.inputs[1])
        return is_known and not np.any(view.values(node.inputs[1])[-1])
    return False


def _read_reshape(graph: ChannelGraph, view: View, given: int, made: int) -> None:
    before, after = _shape(view, given), _shape(view, made)
    if before[-1:] == after[-1:]:
        graph.tie(given, made)
    elif len(after) == 2 and before[:1] == after[:1] and math.prod(before[1:]) == after[1]:
        graph.spread(given, made, channels_last=True)
    else:
        graph.freeze(given, made)


def _norms(view: View, node: Node) -> np.ndarray:
    weights = view.values(node.inputs[1]).astype(np.float64)
    axes = tuple(axis for axis in range(weights.ndim) if axis != OPERATORS[node.kind].axis)
    norms: np.ndarray = np.square(weights).sum(axis=axes)
    return norms


def apply_factors(model: Any, factors: Mapping[str, LayerFactors]) -> None:
    """Rows over what a layer makes, columns times what it reads, in the first signature's network; in place."""
    first = twin_of(model, int(model.signatureDefs[0].subgraphIndex))
    # At other batch sizes it is the same network, which must stay so to share its weights.
    for view in [view for view in views(model) if twin_of(model, view.index) == first]:
        for node in view.nodes:
            if node.kind in LAYERS and node.layer in factors:
                _scale(model, view, node, factors[node.layer])


def _scale(model: Any, view: View, node: Node, factors: LayerFactors) -> None:
    values = view.values(node.inputs[1]).astype(np.float64)
    shape = values.shape
    if factors.columns is not None:
        wide = factors.columns
        if node.kind == "DEPTHWISE_CONV_2D":
            values = values * np.repeat(wide, shape[3] // len(wide))
        elif node.kind == "CONV_2D":
            groups = len(wide) // shape[3]
            by_group = values.reshape(groups, -1, *shape[1:])
            values = (by_group * wide.reshape(groups, 1, 1, 1, shape[3])).reshape(shape)
        else:
            values = values * wide
    if factors.rows is not None:
        axis = OPERATORS[node.kind].axis
        values = values / factors.rows.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        if len(node.inputs) > 2 and node.inputs[2] >= 0:
            bias = view.tensor(node.inputs[2])
            old = view.values(node.inputs[2]).astype(np.float64)
            set_constant(model, bias, (old.reshape(-1) / factors.rows).reshape(old.shape), "float32")
    set_constant(model, view.tensor(node.inputs[1]), values, "float32")
