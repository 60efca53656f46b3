"""Build one half of a quantized program: what its outputs are computed of, back to the values that cross the cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converters.executorch.flow import Key, is_static_quantize
from edge_deploy.core.errors import Unsupported

__all__ = ["build_half", "node_of"]


def node_of(key: Key) -> Any:
    """The node whose result is this value: the one that quantizes it, or the operator itself."""
    node, parameters = key
    if not parameters:
        return node
    return next(user for user in node.users if is_static_quantize(user) and tuple(user.args[1:]) == parameters)


def build_half(graph: Any, given: Mapping[Key, str], wanted: Sequence[Key]) -> Any:
    """A graph module that takes the values `given` and computes `wanted`; constants are shared with `graph`.

    Args:
        given: Values that cross the cut and inputs of the whole, in call order; names are for messages.
        wanted: Values and results of the whole, in order.
    """
    import torch

    half = _Half(graph, given)
    results = tuple(half.copied(node_of(key)) for key in wanted)
    half.made.output(results)
    half.made.lint()
    return torch.fx.GraphModule(graph, half.made)


class _Half:
    """Copies nodes on demand, each once, in an order in which they can be computed."""

    def __init__(self, graph: Any, given: Mapping[Key, str]) -> None:
        import torch

        self.made = torch.fx.Graph()
        self._copies: dict[Any, Any] = {}
        self._taken: list[tuple[Any, Any]] = []
        self._order = {node: place for place, node in enumerate(graph.graph.nodes)}
        for number, key in enumerate(given):
            self._take(key, number)

    def _take(self, key: Key, number: int) -> None:
        node, parameters = key
        source = node_of(key)
        placeholder = self.made.placeholder(f"input_{number}")
        placeholder.meta["val"] = source.meta["val"]
        self._taken.append((source.meta["val"], placeholder))
        if not parameters:
            self._copies[node] = placeholder
            return
        for user in node.users:  # PT2E may quantize a value once for each of its readers
            if is_static_quantize(user) and tuple(user.args[1:]) == parameters:
                self._copies[user] = placeholder

    def copied(self, node: Any) -> Any:
        """The copy of `node`, with everything it is computed of."""
        pending = [node]
        while pending:
            current = pending[-1]
            if current in self._copies:
                pending.pop()
                continue
            size = self._size(current)
            if size is not None:
                self._copies[pending.pop()] = size
                continue
            if current.op == "placeholder":
                raise Unsupported(f"input {current.name} is needed on both sides of the cut, and does not cross it.")
            missing = [arg for arg in current.all_input_nodes if arg not in self._copies]
            if missing:
                pending += sorted(missing, key=lambda arg: self._order[arg], reverse=True)
                continue
            self._copies[pending.pop()] = self.made.node_copy(current, lambda arg: self._copies[arg])
        return self._copies[node]

    def _size(self, node: Any) -> Any:
        """A dynamic size, which any tensor that this half takes can tell; None for other nodes."""
        import torch

        if node.target is not torch.ops.aten.sym_size.int:
            return None
        wanted = str(node.meta["val"])
        for value, placeholder in self._taken:
            for axis, size in enumerate(value.shape):
                if not isinstance(size, int) and str(size) == wanted:
                    found = self.made.call_function(node.target, (placeholder, axis))
                    found.meta = {**node.meta}
                    return found
        return None
