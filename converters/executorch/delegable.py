"""Spell out operators that would leave the delegate as the same arithmetic in operators that XNNPACK takes.

Every portable operator in the middle of a net ends one delegate and begins another, with its activations in float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from converters.executorch.program import LAYER

__all__ = ["spell_out"]


def spell_out(graph: Any) -> int:
    """Rewrite an unlifted graph in place; returns how many operators were rewritten.

    Hard sigmoids and divisions by a number become products (a reciprocal rounds by one unit in the last place), splits
    become slices, poolings and reductions of sequences those of images of width one, maxima over images poolings.
    """
    changed = 0
    for node in list(graph.graph.nodes):
        rule = _RULES.get(str(node.target)) if node.op == "call_function" and not node.kwargs else None
        if rule is None:
            continue
        with graph.graph.inserting_before(node):
            result = rule(_Writer(graph=graph, node=node), node)
        if result is None:
            continue
        if result is not node:
            result.meta = {**node.meta}
            node.replace_all_uses_with(result)
            graph.graph.erase_node(node)
        changed += 1
    return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Inserts operators before the node that they replace, named after its layer."""

    graph: Any
    node: Any

    def call(self, operator: str, *args: Any) -> Any:
        import torch

        packet, _, overload = operator.partition(".")
        made = self.graph.graph.call_function(getattr(getattr(torch.ops.aten, packet), overload), args)
        custom = self.node.meta.get("custom", {})
        made.meta["custom"] = {**custom, LAYER: f"{custom.get(LAYER, self.node.name)}.{packet}"}
        return made

    def view(self, value: Any, shape: Sequence[Any]) -> Any:
        """`value` in another shape, of which at most one size is symbolic."""
        return self.call("view.default", value, [size if isinstance(size, int) else -1 for size in shape])


def _shape(node: Any) -> tuple[Any, ...] | None:
    """Sizes of a floating-point tensor of which at most the batch is symbolic; None for anything else."""
    value: Any = getattr(node, "meta", {}).get("val")
    if not hasattr(value, "is_floating_point") or not value.is_floating_point():
        return None
    sizes = tuple(value.shape)
    return sizes if all(isinstance(size, int) for size in sizes[1:]) else None


def _hard_sigmoid(write: _Writer, node: Any) -> Any:
    cut = write.call("hardtanh.default", write.call("add.Tensor", node.args[0], 3.0), 0.0, 6.0)
    return write.call("mul.Tensor", cut, 1 / 6)


def _quotient(write: _Writer, node: Any) -> Any:
    value, divisor = node.args[:2]
    if not isinstance(divisor, (int, float)) or not divisor or _shape(value) is None:
        return None
    return write.call("mul.Tensor", value, 1 / divisor)


def _split(write: _Writer, node: Any) -> Any:
    """The parts are the getitem nodes behind; the split itself is left without readers."""
    source, parts = node.args[0], node.meta.get("val")
    axis = node.args[2] if len(node.args) > 2 else 0
    shapes = [tuple(part.shape) for part in parts or ()]
    readers = list(node.users)
    if any("getitem" not in str(reader.target) for reader in readers) or not shapes:
        return None
    axis %= len(shapes[0])
    if any(not isinstance(shape[axis], int) for shape in shapes):
        return None
    starts = [sum(shape[axis] for shape in shapes[:place]) for place in range(len(shapes) + 1)]
    for reader in readers:
        place = reader.args[1] % len(shapes)
        part = write.call("slice.Tensor", source, axis, starts[place], starts[place + 1])
        part.meta = {**reader.meta}
        reader.replace_all_uses_with(part)
        write.graph.graph.erase_node(reader)
    return node


def _max_pool1d(write: _Writer, node: Any) -> Any:
    shape, out = _shape(node.args[0]), _shape(node)
    if shape is None or out is None or len(shape) != 3:
        return None
    kernel, stride, padding, dilation = (
        _one(node.args[at], default) if len(node.args) > at else default
        for at, default in ((1, 1), (2, _one(node.args[1], 1)), (3, 0), (4, 1))
    )
    ceil = bool(node.args[5]) if len(node.args) > 5 else False
    if kernel == 1:
        return None  # XNNPACK has no pooling of single values
    image = write.view(node.args[0], (*shape, 1))
    pool = write.call("max_pool2d.default", image, [kernel, 1], [stride, 1], [padding, 0], [dilation, 1], ceil)
    return write.view(pool, out)


def _one(value: Any, default: int) -> int:
    if isinstance(value, (list, tuple)):
        return int(value[0]) if value else default
    return int(value)


def _mean(write: _Writer, node: Any) -> Any:
    """Of sequences; over images `converters.executorch.rewrites` has it."""
    shape, out = _shape(node.args[0]), _shape(node)
    if shape is None or out is None or len(shape) != 3 or node.args[1] is None:
        return None
    axes = [axis % 3 for axis in node.args[1]]
    if axes not in ([1], [2]):
        return None
    image = write.view(*_channels_first(write, node.args[0], shape, axes))
    return write.view(write.call("mean.dim", image, [-1, -2], True), out)


def _adaptive_mean(write: _Writer, node: Any) -> Any:
    shape, out = _shape(node.args[0]), _shape(node)
    if shape is None or out is None or len(shape) != 3 or list(node.args[1]) != [1]:
        return None
    image = write.view(node.args[0], (*shape, 1))
    return write.view(write.call("mean.dim", image, [-1, -2], True), out)


def _maximum(write: _Writer, node: Any) -> Any:
    """Over all places of an image or a sequence, in either layout."""
    shape, out = _shape(node.args[0]), _shape(node)
    if shape is None or out is None or len(shape) not in (3, 4) or len(node.args) < 2:
        return None
    rank = len(shape)
    given = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    axes = sorted(axis % rank for axis in given)
    places = [shape[axis] for axis in axes]
    if axes not in ([*range(1, rank - 1)], [*range(2, rank)]) or all(size == 1 for size in places):
        return None
    image, sizes = _channels_first(write, node.args[0], shape, axes)
    if rank == 3:
        image = write.view(image, sizes)
    pool = write.call("max_pool2d.default", image, [sizes[2], sizes[3]], [sizes[2], sizes[3]])
    return write.view(pool, out)


def _channels_first(write: _Writer, value: Any, shape: Sequence[Any], axes: Sequence[int]) -> tuple[Any, list[Any]]:
    """`value` with the reduced `axes` behind, and the sizes of the image that it is then."""
    rank = len(shape)
    if axes[-1] == rank - 1:
        return value, [*shape, 1][:4]
    moved = write.call("permute.default", value, [0, rank - 1, *range(1, rank - 1)])
    return moved, [shape[0], shape[-1], *shape[1:-1], 1][:4]


_RULES: dict[str, Callable[[_Writer, Any], Any]] = {
    "aten.hardsigmoid.default": _hard_sigmoid,
    "aten.div.Tensor": _quotient,
    "aten.div.Scalar": _quotient,
    "aten.chunk.default": _split,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.max_pool1d.default": _max_pool1d,
    "aten.mean.dim": _mean,
    "aten.adaptive_avg_pool1d.default": _adaptive_mean,
    "aten.amax.default": _maximum,
}
