"""Embedding bags in an exported graph: find them, learn how long their bags are, put plain operators instead."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.passes.pooling import Pooling, pool_flat, pool_rows
from edge_deploy.core.errors import Refusal, Unsupported

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import Node

__all__ = ["replace_bags"]

_LARGEST_CONSTANT = 1 << 22
"""Elements of a tensor above which constant offsets are not worth computing."""

_OPS = ("aten::embedding_bag", "aten::_embedding_bag", "aten::_embedding_bag_forward_only")
_POOLINGS: dict[int, Pooling] = {0: "sum", 1: "mean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bag:
    """The arguments of one embedding bag, by meaning; nodes of the graph where they are tensors."""

    weight: Node
    ids: Node
    offsets: Node
    mode: int
    padding_index: int | None
    sample_weights: Node | None
    includes_last: bool


def replace_bags(program: ExportedProgram) -> ExportedProgram:
    """See `converters.passes.embedding_bag.rewrite_program`."""
    module = program.graph_module
    bags = [node for node in module.graph.nodes if _op_name(node) in _OPS]
    refusals = [refusal for node in module.graph.nodes for refusal in _refusals(node)]
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    if not bags:
        return program
    with module._set_replace_hook(program.graph_signature.get_replace_hook()):
        for node in bags:
            _replace(program, node)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    program.validate()
    return program


def _op_name(node: Node) -> str:
    return node.target._schema.name if node.op == "call_function" and hasattr(node.target, "_schema") else ""


def _refusals(node: Node) -> list[Refusal]:
    name = _op_name(node)
    if name == "aten::embedding_renorm_" or name == "aten::embedding_renorm":
        reason = "limits the norm of its rows (max_norm) at every look-up"
        remedy = "apply converters.passes.embedding_bag.limit_norms to the module before export"
        return [Refusal(layer=_layer(node), op=name, reason=reason, remedy=remedy)]
    if name not in _OPS:
        return []
    found = []
    if _bag(node).mode not in _POOLINGS:
        found.append(
            Refusal(layer=_layer(node), op=name, reason="takes the maximum of a bag", remedy="use sum or mean")
        )
    if any(_result_index(user) != 0 and user.users for user in node.users):
        reason = "its bag sizes or offsets are used, not only its vectors"
        found.append(Refusal(layer=_layer(node), op=name, reason=reason))
    return found


def _layer(node: Node) -> str:
    """The module path of a node, as users know it; the node's name where there is none."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values() if path]
    return paths[-1] if paths else node.name


def _result_index(user: Node) -> Any:
    import operator

    return user.args[1] if user.target is operator.getitem else None


def _bag(node: Node) -> _Bag:
    values: dict[str, Any] = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
        values[argument.name] = value
    values.update(node.kwargs)
    padding = values.get("padding_idx")
    if padding is not None and padding < 0:
        # embedding_bag counts negative indices from the end; in _embedding_bag -1 means that there is none.
        counts_from_end = _op_name(node) == "aten::embedding_bag"
        padding = padding + values["weight"].meta["val"].shape[0] if counts_from_end else None
    return _Bag(
        weight=values["weight"],
        ids=values["indices"],
        offsets=values["offsets"],
        mode=values["mode"],
        padding_index=padding,
        sample_weights=values["per_sample_weights"],
        includes_last=bool(values["include_last_offset"]),
    )


def _replace(program: ExportedProgram, node: Node) -> None:
    bag = _bag(node)
    pooling = _POOLINGS[bag.mode]
    rows = _uniform_ids(program, bag)
    weights = bag.sample_weights

    if rows is None:

        def compute(weight: Tensor, ids: Tensor, offsets: Tensor, *extra: Tensor) -> Tensor:
            return pool_flat(
                weight,
                ids,
                offsets,
                pooling=pooling,
                includes_last=bag.includes_last,
                padding_index=bag.padding_index,
                sample_weights=extra[0] if extra else None,
            )

        inputs = [bag.weight, bag.ids, bag.offsets]
    else:
        ids_node, length = rows

        def compute(weight: Tensor, ids: Tensor, *extra: Tensor) -> Tensor:  # type: ignore[misc]  # the other shape of input
            return pool_rows(
                weight,
                ids if ids.dim() == 2 or length == 1 else ids.reshape(-1, length),
                pooling=pooling,
                padding_index=bag.padding_index,
                sample_weights=extra[0] if extra else None,
            )

        inputs = [bag.weight, ids_node]
    if weights is not None:
        inputs.append(weights)
    result = _inline(node, compute, inputs)
    for user in list(node.users):
        if _result_index(user) == 0:
            user.replace_all_uses_with(result)
        node.graph.erase_node(user)
    node.graph.erase_node(node)


def _inline(node: Node, compute: Any, inputs: list[Node]) -> Node:
    """Trace `compute` on the inputs' fake tensors and copy its operators in front of `node`."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        traced = make_fx(compute, tracing_mode="symbolic")(*(value.meta["val"] for value in inputs))
    places: dict[Any, Any] = {}
    remaining = iter(inputs)
    for inner in traced.graph.nodes:
        if inner.op == "placeholder":
            places[inner] = next(remaining)
        elif inner.op == "output":
            result = inner.args[0]
        else:
            with node.graph.inserting_before(node):
                copied = node.graph.node_copy(inner, lambda value: places[value])
            kept = {key: node.meta[key] for key in ("nn_module_stack", "stack_trace", "torch_fn") if key in node.meta}
            copied.meta = {"val": inner.meta.get("val"), **kept}
            places[inner] = copied
    made: Node = places[result]
    return made


def _uniform_ids(program: ExportedProgram, bag: _Bag) -> tuple[Node, int] | None:
    """The ids as a node [bags, length], or flat with the length, where all bags are known to have one length."""
    known = _length_of_arange(bag)
    if known is None:
        known = _length_of_constant(program, bag)
    if known is None and not bag.includes_last and _same(bag.offsets.meta["val"].shape[0], 1):
        known = bag.ids.meta["val"].shape[0]  # one bag of everything: torch refuses a first offset other than 0
    source = _flattened(bag.ids)
    if source is not None and known is not None and _same(source.meta["val"].shape[1], known):
        return source, -1
    return (bag.ids, int(known)) if isinstance(known, int) else None


def _flattened(node: Node) -> Node | None:
    """What is two-dimensional before `node` flattens it."""
    shaping = ("aten::reshape", "aten::view", "aten::flatten", "aten::_unsafe_view")
    if _op_name(node) not in shaping or not hasattr(node.args[0], "meta"):
        return None
    source: Node = node.args[0]
    return source if source.meta["val"].dim() == 2 else None


def _same(first: Any, second: Any) -> bool:
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return bool(statically_known_true(first == second))


def _length_of_arange(bag: _Bag) -> Any:
    """The step of offsets made by arange over all ids: what a two-dimensional input becomes on export."""
    if _op_name(bag.offsets) != "aten::arange":
        return None
    values = [value.meta["val"] if hasattr(value, "meta") else value for value in bag.offsets.args]
    start, end, step = [0, *values, 1] if len(values) == 1 else [*values, 1][:3]
    if not isinstance(start, int) or start != 0 or (isinstance(step, int) and step < 1):
        return None
    count = bag.ids.meta["val"].shape[0]
    covered = end - step if bag.includes_last else end
    if isinstance(step, int) and isinstance(covered, int) and isinstance(count, int):
        bags = math.ceil(end / step) - (1 if bag.includes_last else 0)
        return step if bags * step == count else None
    source = _flattened(bag.ids)
    # Where the number of bags is symbolic, the ids must come from [bags, step] for all bags to be full.
    if step != 1 and (source is None or not _same(source.meta["val"].shape[1], step)):
        return None
    return step if _same(covered, count) else None


def _length_of_constant(program: ExportedProgram, bag: _Bag) -> int | None:
    offsets = _constant(program, bag.offsets, {})
    count = bag.ids.meta["val"].shape[0]
    if offsets is None or not isinstance(count, int):
        return None
    bounds = [int(value) for value in offsets.tolist()]
    if not bag.includes_last:
        bounds.append(count)
    lengths = {after - before for before, after in itertools.pairwise(bounds)}
    whole = bool(bounds) and bounds[0] == 0 and bounds[-1] == count
    return lengths.pop() if whole and len(lengths) == 1 else None


def _constant(program: ExportedProgram, node: Any, seen: dict[Any, Any]) -> Any:
    """The value of a node that no input reaches, or None; `seen` remembers what was tried."""
    import torch

    if not isinstance(node, torch.fx.Node):
        return node
    if node in seen:
        return seen[node]
    seen[node] = None
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and isinstance(value.numel(), int) and value.numel() <= _LARGEST_CONSTANT:
        if node.op == "placeholder":
            seen[node] = _stored(program, node.name)
        elif node.op == "call_function" and hasattr(node.target, "_schema") and not node.target._schema.is_mutable:
            seen[node] = _computed(program, node, seen)
    return seen[node]


def _computed(program: ExportedProgram, node: Node, seen: dict[Any, Any]) -> Any:
    import torch
    from torch.utils import _pytree

    if torch.Tag.nondeterministic_seeded in node.target.tags:
        return None
    leaves, spec = _pytree.tree_flatten((node.args, node.kwargs))
    values = [_constant(program, leaf, seen) for leaf in leaves]
    if any(value is None and isinstance(leaf, torch.fx.Node) for leaf, value in zip(leaves, values, strict=True)):
        return None
    arguments, options = _pytree.tree_unflatten(values, spec)
    with torch.no_grad():
        value: Any = node.target(*arguments, **options)
    return value


def _stored(program: ExportedProgram, placeholder: str) -> Any:
    """A buffer or constant that the program never changes."""
    signature = program.graph_signature
    if placeholder in signature.inputs_to_buffers:
        name = signature.inputs_to_buffers[placeholder]
        if name in signature.buffers_to_mutate.values():
            return None
        return program.state_dict.get(name, program.constants.get(name))
    if placeholder in signature.inputs_to_lifted_tensor_constants:
        return program.constants.get(signature.inputs_to_lifted_tensor_constants[placeholder])
    return None
