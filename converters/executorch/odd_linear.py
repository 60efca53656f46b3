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
    """Append a zero column to the weight of each odd linear in `layers` and a zero to its input; returns how many."""
    import torch

    aten = torch.ops.aten
    padded = 0
    for node in list(graph.graph.nodes):
        if node.target is not aten.linear.default or layer_name(node) not in layers:
            continue
        weight = attribute(graph, str(node.args[1].target))
        if weight.shape[1] % 2 == 0:
            continue
        wider = torch.nn.functional.pad(weight.detach(), (0, 1))
        with graph.graph.inserting_before(node):
            new_weight = graph.graph.get_attr(set_attribute(graph, str(node.args[1].target), "even", wider))
            pad = graph.graph.call_function(aten.constant_pad_nd.default, (node.args[0], [0, 1], 0.0))
        pad.meta["custom"] = {LAYER: f"{layer_name(node)}.pad"}
        node.args = (pad, new_weight, *node.args[2:])
        padded += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return padded
