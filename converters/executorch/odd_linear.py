"""Give 4-bit linears an even number of inputs: XNNPACK's 4-bit kernels compute garbage for odd ones.

Seen with executorch 1.5.1 on x86 with two threads and on every ARM core; a single-threaded x86 run can look right.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from converters.executorch.layers import layer_name
from converters.executorch.program import LAYER, attribute, set_attribute

__all__ = ["pad_odd_linears"]


def pad_odd_linears(graph: Any, layers: Collection[str]) -> int:
    """Append a zero column to the weight of each odd linear in `layers`, and a zero to its input; returns how many.

    Where the input comes from another linear, that one gets a row of zeros and its own output the zero, which costs
    nothing; elsewhere a pad is inserted.
    """
    import torch

    aten = torch.ops.aten
    padded = 0
    for node in list(graph.graph.nodes):
        if node.target is not aten.linear.default or layer_name(node) not in layers:
            continue
        weight = attribute(graph, str(node.args[1].target))
        if weight.shape[1] % 2 == 0:
            continue
        _replace(graph, node, 1, torch.nn.functional.pad(weight.detach(), (0, 1)))
        producer = _producer(node.args[0])
        if producer is not None:
            _add_zero_row(graph, producer)
        else:
            with graph.graph.inserting_before(node):
                pad = graph.graph.call_function(aten.constant_pad_nd.default, (node.args[0], [0, 1], 0.0))
            pad.meta["custom"] = {LAYER: f"{layer_name(node)}.pad"}
            node.args = (pad, *node.args[1:])
        padded += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return padded


def _producer(node: Any) -> Any:
    """The linear whose only use, perhaps through functions with f(0) = 0, is the value `node`; else None."""
    import torch

    aten = torch.ops.aten
    keeps_zero = (aten.relu.default, aten.relu_.default, aten.relu6.default, aten.leaky_relu.default, aten.tanh.default)
    while node.op == "call_function" and len(node.users) == 1:
        if node.target is aten.linear.default:
            constants = node.args[1:]
            return node if all(arg is not None and arg.op == "get_attr" for arg in constants) else None
        if node.target not in keeps_zero:
            return None
        node = node.args[0]
    return None


def _add_zero_row(graph: Any, linear: Any) -> None:
    import torch

    weight = attribute(graph, str(linear.args[1].target)).detach()
    _replace(graph, linear, 1, torch.nn.functional.pad(weight, (0, 0, 0, 1)))
    if len(linear.args) > 2:
        bias = attribute(graph, str(linear.args[2].target)).detach()
        _replace(graph, linear, 2, torch.nn.functional.pad(bias, (0, 1)))


def _replace(graph: Any, node: Any, index: int, value: Any) -> None:
    """Let argument `index` of `node` read `value`; the constant that it read may have other readers."""
    with graph.graph.inserting_before(node):
        constant = graph.graph.get_attr(set_attribute(graph, str(node.args[index].target), "even", value))
    node.args = (*node.args[:index], constant, *node.args[index + 1 :])
