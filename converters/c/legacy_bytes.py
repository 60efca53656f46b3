"""Files of the older converters keep their values in UINT8: the same numbers in INT8, 128 lower, zero points too.

Their kernels differ from those of INT8, which a node's `is_legacy` tells the builders: weights have a zero point,
convolutions take the product of scales in single precision, and averages round halves upwards.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from converters.c.graph import Graph, Node, Tensor

__all__ = ["LEGACY", "as_int8"]

BORDER = ("QUANTIZE", "DEQUANTIZE")
# What gives the same numbers, 128 lower, from numbers 128 lower; each is held against its reference kernel.
LEGACY = frozenset(
    (
        *("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "AVERAGE_POOL_2D", "MAX_POOL_2D", "SOFTMAX", "ADD"),
        *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION", "PAD", *BORDER),
    )
)
HALF = 128


def as_int8(graph: Graph) -> Graph:
    """The graph with INT8 in the place of UINT8 inside, and its border as it was; others are left as they are.

    Operators that are not in `LEGACY` keep their UINT8 values, and are refused by their own builders.
    """
    inside = [node for node in graph.nodes if node.op not in BORDER and any(_is_byte(t) for t in _around(node))]
    if not inside or not all(node.op in LEGACY for node in inside):
        return graph
    tensors = {t.index: t for node in graph.nodes for t in _around(node)}
    lower = {index: _lower(tensor) for index, tensor in tensors.items() if _is_byte(tensor)}
    beyond = max(*tensors, *(t.index for t in (*graph.inputs, *graph.outputs))) + 1
    before, after = [], []
    for tensor in graph.inputs:
        if tensor.index in lower:
            # The caller's bytes stay where they are; a copy of them is what the graph works on.
            lower[tensor.index] = replace(lower[tensor.index], index=beyond, name=f"{tensor.name}_int8")
            before.append(_change(tensor, lower[tensor.index]))
            beyond += 1
    for tensor in graph.outputs:
        if tensor.index in lower and lower[tensor.index].index == tensor.index:
            lower[tensor.index] = replace(lower[tensor.index], index=beyond, name=f"{tensor.name}_int8")
            after.append(_change(lower[tensor.index], tensor))
            beyond += 1
    nodes = [
        replace(
            node,
            inputs=tuple(None if t is None else lower.get(t.index, t) for t in node.inputs),
            outputs=tuple(lower.get(t.index, t) for t in node.outputs),
            is_legacy=any(_is_byte(t) for t in _around(node)),
        )
        for node in graph.nodes
    ]
    return replace(graph, nodes=(*before, *nodes, *after))


def _around(node: Node) -> tuple[Tensor, ...]:
    return tuple(t for t in (*node.inputs, *node.outputs) if t is not None)


def _is_byte(tensor: Tensor) -> bool:
    return tensor.dtype == "uint8" and len(tensor.scale) == 1


def _lower(tensor: Tensor) -> Tensor:
    values = None if tensor.values is None else (tensor.values.astype(np.int16) - HALF).astype(np.int8)
    return replace(tensor, dtype="int8", zero_point=tensor.zero_point - HALF, values=values)


def _change(given: Tensor, made: Tensor) -> Node:
    return Node(layer=made.name, op="QUANTIZE", inputs=(given,), outputs=(made,), options=None)
