"""Run an unlifted torch graph and keep what every layer computes, as real values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.executorch.layers import layer_name

__all__ = ["as_taken", "constant", "is_quantized_lookup", "layer_nodes", "run_traced", "shown_node"]

_QUANTIZED = "quantized_decomposed."
_LOOKUPS = (f"{_QUANTIZED}embedding_byte", f"{_QUANTIZED}embedding_4bit")
_WITH_WEIGHTS = ("aten.conv", "aten.linear", "aten.embedding", *_LOOKUPS)


def is_quantized_lookup(node: Any) -> bool:
    """Whether a node looks up rows of an INT8 or INT4 table: arguments are rows, scales, zero points, bounds, ids."""
    return str(node.target).startswith(_LOOKUPS)


def layer_nodes(graph: Any) -> dict[str, Any]:
    """The node that stands for each layer, by layer name: the one with weights, else the last.

    Quantize and dequantize nodes stand for none.
    """
    found: dict[str, Any] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or (str(node.target).startswith(_QUANTIZED) and not is_quantized_lookup(node)):
            continue
        name = layer_name(node)
        if name not in found or not str(found[name].target).startswith(_WITH_WEIGHTS):
            found[name] = node
    return found


def run_traced(graph: Any, arguments: Sequence[Any], nodes: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the layers of `nodes` compute for one batch, float64 by layer name.

    The value of a layer whose only reader quantizes it is the quantized one, made real. Inputs that the graph takes
    as INT8 are quantized with the scale that the graph reads them with. What is no floating-point tensor is left out.

    Args:
        arguments: Real-valued or integer tensors in call order.
    """
    import torch

    values: dict[str, Any] = {}
    wanted = {shown_node(node).name for node in nodes.values()}

    class Recorder(torch.fx.Interpreter):  # type: ignore[misc]  # its types are not read, see pyproject.toml
        """Keeps copies, because a later operator may work in place."""

        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            if n.name in wanted and isinstance(result, torch.Tensor):
                values[n.name] = result.detach().clone()
            return result

        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            if str(target).startswith(_LOOKUPS):
                args = _only_read_rows(args)
            return super().call_function(target, args, kwargs)

    holders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    feeds = [as_taken(holder, value) for holder, value in zip(holders, arguments, strict=True)]
    with torch.no_grad():
        Recorder(graph).run(*feeds)
    found = {}
    for name, node in nodes.items():
        shown = shown_node(node)
        value = values.get(shown.name)
        if value is None:
            continue
        if shown is not node:
            scale, zero = float(shown.args[1]), float(shown.args[2])
            found[name] = (value.double().numpy() - zero) * scale
        elif value.is_floating_point():
            found[name] = value.double().numpy()
    return found


def shown_node(node: Any) -> Any:
    """The node itself, or the only node that reads it when that one quantizes it."""
    users = list(node.users)
    if len(users) == 1 and str(users[0].target).startswith(f"{_QUANTIZED}quantize_per_tensor.default"):
        return users[0]
    return node


def as_taken(holder: Any, value: Any) -> Any:
    """A float tensor as the graph's INT8 input; other tensors as they are."""
    import torch

    reader = holder
    while value.is_floating_point() and not str(reader.target).startswith(f"{_QUANTIZED}dequantize_per_tensor"):
        if not reader.users or holder.meta["val"].dtype is not torch.int8:
            return value
        reader = next(iter(reader.users))  # operators that only move values may stand in between
    if reader is holder:
        return value
    scale, zero = reader.args[1:3]
    return torch.clamp(torch.round(value / scale) + zero, -128, 127).to(torch.int8)


def _only_read_rows(args: Sequence[Any]) -> tuple[Any, ...]:
    """A look-up into a table of the rows that are read: the stock operators make the whole table float first."""
    import torch

    rows, scales, zeros, low, high, ids = args[:6]
    read, places = torch.unique(ids, return_inverse=True)
    return (rows[read], scales[read], zeros[read] if zeros is not None else None, low, high, places, *args[6:])


def constant(graph: Any, node: Any) -> Any:
    """The tensor that a node computes from constants alone; None where an input of the graph enters."""
    import torch

    from converters.executorch.program import attribute

    if node.op == "get_attr":
        return attribute(graph, str(node.target)).detach()
    if node.op != "call_function":
        return None
    inputs = {arg: constant(graph, arg) for arg in node.all_input_nodes}
    if any(value is None for value in inputs.values()):
        return None
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), inputs.__getitem__)
    return node.target(*args, **kwargs)
