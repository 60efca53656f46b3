"""Make the inputs and outputs of a converted PT2E graph int8: drop the first quantize and the last dequantize."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_deploy.core.errors import Unsupported
from edge_deploy.core.tensor import TensorInfo

__all__ = ["strip_float_border"]

Infos = tuple[TensorInfo, ...]
# A probability needs the whole of [0, 1): the scale and zero point that TFLite fixes for softmax and sigmoid.
_PROBABILITY = (1.0 / 256.0, -128)


def strip_float_border(graph: Any, inputs: Infos, outputs: Infos) -> tuple[Infos, Infos]:
    """Change `graph` in place; integer inputs, such as ids, stay as they are.

    Returns:
        What the changed graph takes and gives, with scale and zero point.

    Raises:
        Unsupported: A float input is not quantized first, or an output not dequantized last, each by name.
    """
    import torch

    operators = torch.ops.quantized_decomposed
    quantize, dequantize = operators.quantize_per_tensor.default, operators.dequantize_per_tensor.default
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    problems: list[str] = []
    new_inputs = []
    for node, info in zip(placeholders, inputs, strict=True):
        if not info.dtype.startswith("float"):
            new_inputs.append(info)
            continue
        _hoist_quantize(graph, node, quantize)
        readers = _readers(node)
        parameters = {user.args[1:3] for user in readers if user.target is quantize}
        if len(parameters) != 1 or any(user.target is not quantize for user in readers):
            problems.append(f"--io int8: input {info.name} is not quantized first in the graph; take --io float.")
            new_inputs.append(info)
            continue
        for user in readers:
            user.replace_all_uses_with(node)
            graph.graph.erase_node(user)
        new_inputs.append(_quantized(info, *parameters.pop()))
    result = next(node for node in graph.graph.nodes if node.op == "output")
    new_outputs, values = [], []
    for node, info in zip(result.args[0], outputs, strict=True):
        value, parameters_found = _int8_value(graph, node, quantize, dequantize, result)
        if value is None:
            problems.append(f"--io int8: output {info.name} ends in a float operator ({node.target}); take --io float.")
        else:
            new_outputs.append(_quantized(info, *parameters_found))
            values.append(value)
    if problems:
        raise Unsupported(*problems)
    result.args = (tuple(values),)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return tuple(new_inputs), tuple(new_outputs)


def _quantized(info: TensorInfo, scale: float, zero_point: int) -> TensorInfo:
    return replace(info, dtype="int8", scale=(float(scale),), zero_point=(int(zero_point),), mean=(), std=())


def _moves_only(target: Any) -> bool:
    """Whether an operator only moves values about, so that it gives the same on quantized ones."""
    import torch

    aten = torch.ops.aten
    return target in (
        aten.permute.default,
        aten.contiguous.default,
        aten.clone.default,
        aten.transpose.int,
        aten.view.default,
        aten.reshape.default,
        aten.flatten.using_ints,
        aten.squeeze.dim,
        aten.unsqueeze.default,
    )


def _readers(node: Any) -> list[Any]:
    """Who reads values, not only a dynamic batch's size; assertions about their float type are removed on the way."""
    import torch

    for user in list(node.users):
        if user.target is torch.ops.aten._assert_tensor_metadata.default:
            user.graph.erase_node(user)
    return [user for user in node.users if user.target is not torch.ops.aten.sym_size.int]


def _hoist_quantize(graph: Any, node: Any, quantize: Any) -> None:
    """Turn quantize(move(x)) into move(quantize(x)) as long as x goes nowhere else."""
    chain = []
    current = node
    while len(readers := _readers(current)) == 1 and _moves_only(readers[0].target):
        current = readers[0]
        chain.append(current)
    readers = _readers(current)
    if not chain or not readers or any(user.target is not quantize for user in readers):
        return
    first = readers[0]
    if any(user.args[1:3] != first.args[1:3] for user in readers):
        return
    with graph.graph.inserting_after(node):
        early = graph.graph.call_function(quantize, (node, *first.args[1:]))
    chain[0].args = (early, *chain[0].args[1:])
    for user in readers:
        user.replace_all_uses_with(current)
        graph.graph.erase_node(user)


def _int8_value(graph: Any, node: Any, quantize: Any, dequantize: Any, result: Any) -> tuple[Any, tuple[float, int]]:
    """The int8 node that an output can be replaced with, and its scale and zero point; None where there is none."""
    import torch

    aten = torch.ops.aten
    chain = []
    current = node
    while _moves_only(current.target) and len(current.users) == 1:
        chain.append(current)
        current = current.args[0]
    if current.target is dequantize:
        if not chain:
            return current.args[0], tuple(current.args[1:3])
        if len(current.users) == 1:
            chain[-1].args = (current.args[0], *chain[-1].args[1:])
            return node, tuple(current.args[1:3])
    if current.target in (aten.softmax.int, aten._softmax.default, aten.sigmoid.default):
        with graph.graph.inserting_before(result):
            added = graph.graph.call_function(quantize, (node, *_PROBABILITY, -128, 127, torch.int8))
        return added, _PROBABILITY
    return None, (1.0, 0)
