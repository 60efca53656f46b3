"""Compute what a graph computes of sizes alone: with its sizes fixed, SHAPE and what follows from it are constants.

Converters write such chains (SHAPE, STRIDED_SLICE, PACK, RESHAPE) wherever a model was built for an open batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from converters.c.graph import Graph, Node, Tensor

__all__ = ["fold_sizes"]

MOST_VALUES = 64  # sizes and no tables


def fold_sizes(graph: Graph) -> Graph:
    """The graph without the nodes whose values are known, their outputs as constants."""
    known: dict[int, Tensor] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        now = replace(node, inputs=tuple(known.get(t.index, t) if t is not None else None for t in node.inputs))
        values = _values(now)
        if values is None:
            kept.append(now)
            continue
        for tensor, value in zip(now.outputs, values, strict=True):
            known[tensor.index] = replace(tensor, values=value.astype(tensor.dtype).reshape(tensor.shape))
    outputs = tuple(known.get(t.index, t) for t in graph.outputs)
    return replace(graph, nodes=tuple(kept), outputs=outputs)


def _values(node: Node) -> tuple[np.ndarray, ...] | None:
    """What the node computes, where that is sizes and follows from constants; None otherwise."""
    small = all(t.dtype in ("int32", "int64") and t.size <= MOST_VALUES for t in node.outputs)
    if not small or node.op not in COMPUTED:
        return None
    if node.op == "SHAPE":
        source = node.inputs[0]
        assert source is not None
        return (np.array(source.shape, np.int64),)
    given = [t.values for t in node.inputs if t is not None]
    if any(value is None for value in given):
        return None
    try:
        found = COMPUTED[node.op](node, [np.asarray(value) for value in given])
    except (ValueError, IndexError, TypeError, ZeroDivisionError):
        return None  # whatever it is, the operator's own builder says why it has no form
    return (found,) if found.size == node.outputs[0].size else None


def _strided_slice(node: Node, given: list[np.ndarray]) -> np.ndarray:
    x, begin, end, step = given
    if any(int(node.option(name, 0)) for name in ("ellipsisMask", "newAxisMask")) or node.option("offset", False):
        raise ValueError("masks")
    picks: list[slice | int] = []
    for axis in range(len(begin)):
        if int(node.option("shrinkAxisMask", 0)) >> axis & 1:
            picks.append(int(begin[axis]))
            continue
        first = None if int(node.option("beginMask", 0)) >> axis & 1 else int(begin[axis])
        last = None if int(node.option("endMask", 0)) >> axis & 1 else int(end[axis])
        picks.append(slice(first, last, int(step[axis])))
    return np.asarray(x[tuple(picks)])


def _slice(node: Node, given: list[np.ndarray]) -> np.ndarray:
    x, begin, size = given
    ends = [n if s < 0 else b + s for b, s, n in zip(begin, size, x.shape, strict=True)]
    return x[tuple(slice(int(b), int(e)) for b, e in zip(begin, ends, strict=True))]


def _axes(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in values.reshape(-1))


def _joined(how: Callable[..., np.ndarray]) -> Callable[[Node, list[np.ndarray]], np.ndarray]:
    return lambda node, given: how(given, axis=int(node.option("axis", 0)))


def _pairwise(how: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Node, list[np.ndarray]], np.ndarray]:
    return lambda node, given: how(given[0], given[1])


def _first(node: Node, given: Iterable[np.ndarray]) -> np.ndarray:
    return next(iter(given))


COMPUTED: dict[str, Callable[[Node, list[np.ndarray]], np.ndarray]] = {
    "SHAPE": _first,  # of which only the type is needed
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "PACK": _joined(np.stack),
    "CONCATENATION": _joined(np.concatenate),
    "GATHER": lambda node, given: np.take(given[0], given[1], axis=int(node.option("axis", 0))),
    "REDUCE_PROD": lambda node, given: np.asarray(np.prod(given[0], axis=_axes(given[1]))),
    "ADD": _pairwise(np.add),
    "SUB": _pairwise(np.subtract),
    "MUL": _pairwise(np.multiply),
    "MAXIMUM": _pairwise(np.maximum),
    "MINIMUM": _pairwise(np.minimum),
    "CAST": _first,
    "RESHAPE": _first,
    "SQUEEZE": _first,
    "EXPAND_DIMS": _first,
}
"""How each operator computes sizes."""
