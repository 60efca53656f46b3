"""A graph as C steps over one planned arena."""

from __future__ import annotations

from dataclasses import dataclass, replace

from converters.c.arena import Arena, Block, Pair, plan
from converters.c.folding import fold_sizes
from converters.c.graph import Graph, Node, Tensor
from converters.c.legacy_bytes import as_int8
from converters.c.operators import elementwise, matrix, moving, pooling, resizing
from converters.c.step import Step
from edge_deploy.core.errors import BadInput, Refusal, Unsupported

__all__ = ["BUILDERS", "Program", "build"]

BUILDERS = {
    **matrix.BUILDERS,
    **pooling.BUILDERS,
    **elementwise.BUILDERS,
    **moving.BUILDERS,
    **resizing.BUILDERS,
}
"""What makes a step of each operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is written as C.

    Attributes:
        places: Offset in the arena by tensor index.
        constants: Tensors that a step reads from flash and that belong to no layer.
        scratch: Offset of each step's scratch memory.
    """

    graph: Graph
    steps: tuple[Step, ...]
    places: dict[int, int]
    constants: dict[int, Tensor]
    scratch: dict[int, int]
    arena_bytes: int


def build(graph: Graph) -> Program:
    """The steps of a graph and the place of every value.

    Raises:
        Unsupported: Operators that have no form in C, all of them by layer.
        BadInput: An output is an input or a constant.
    """
    graph = as_int8(fold_sizes(graph))
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for node in graph.nodes:
        try:
            steps.append(_step(node))
        except Unsupported as error:
            refusals += error.refusals
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    roots = _roots(steps)
    for out in graph.outputs:
        if out.values is not None:
            raise BadInput(f"output {out.name}: is a constant; nothing is computed.")
    arena = _frugal(graph, steps, roots)
    tensors = {t.index: t for node in graph.nodes for t in (*node.inputs, *node.outputs) if t is not None}
    tensors |= {t.index: t for t in (*graph.inputs, *graph.outputs)}
    computed = [index for index, tensor in tensors.items() if tensor.values is None]
    places = {index: arena.offsets[f"t{roots.get(index, index)}"] for index in computed}
    return Program(
        graph=graph,
        steps=tuple(steps),
        places=places,
        constants={index: tensor for index, tensor in tensors.items() if tensor.values is not None},
        scratch={number: arena.offsets[f"s{number}"] for number, step in enumerate(steps) if step.scratch_bytes},
        arena_bytes=arena.bytes,
    )


def _step(node: Node) -> Step:
    builder = BUILDERS.get(node.op)
    if builder is None:
        known = ", ".join(sorted(BUILDERS))
        raise Unsupported(
            refusals=(
                Refusal(layer=node.layer, op=node.op, reason=f"is not one of the operators written in C ({known})"),
            )
        )
    for tensor in (*node.inputs, *node.outputs):
        if tensor is not None and tensor.dtype in ("float16", "float64", "int16") and tensor.values is None:
            reason = f"works on {tensor.dtype}"
            raise Unsupported(refusals=(Refusal(layer=node.layer, op=node.op, reason=reason, remedy="use INT8"),))
    return builder(node)


def _roots(steps: list[Step]) -> dict[int, int]:
    """The tensor in whose place a tensor lies, for those that are moved by no step."""
    roots: dict[int, int] = {}
    for step in steps:
        if step.same_as is not None:
            roots[step.node.outputs[0].index] = roots.get(step.same_as, step.same_as)
    return roots


def _frugal(graph: Graph, steps: list[Step], roots: dict[int, int]) -> Arena:
    """The arena; where scratch memory makes it larger than the values need, kernels that want less are taken.

    They are slower, so no more of them are taken than are needed. `steps` is changed.
    """
    arena = _planned(graph, steps, roots)
    enough = _planned(graph, [replace(step, scratch_bytes=0, overlaps={}) for step in steps], roots).bytes
    taken: list[tuple[int, Step]] = []
    for number in sorted(range(len(steps)), key=lambda number: -steps[number].scratch_bytes):
        before = steps[number]
        if arena.bytes <= enough or not before.scratch_bytes:
            break
        steps[number] = BUILDERS[before.node.op](replace(before.node, is_frugal=True))
        smaller = _planned(graph, steps, roots)
        if smaller.bytes > arena.bytes:
            steps[number] = before
            continue
        arena = smaller
        taken.append((number, before))
    for number, before in taken:
        now, steps[number] = steps[number], before
        back = _planned(graph, steps, roots)
        if back.bytes <= max(enough, arena.bytes):
            arena = back
        else:
            steps[number] = now
    return arena


def _planned(graph: Graph, steps: list[Step], roots: dict[int, int]) -> Arena:
    """Inputs live from before the first step, outputs until after the last."""
    born: dict[int, int] = {}
    dies: dict[int, int] = {}
    size: dict[int, int] = {}

    def see(tensor: Tensor, number: int) -> None:
        root = roots.get(tensor.index, tensor.index)
        born.setdefault(root, number)
        dies[root] = max(dies.get(root, number), number)
        size[root] = max(size.get(root, 0), tensor.bytes)

    for tensor in graph.inputs:
        see(tensor, -1)
    for number, step in enumerate(steps):
        for given in step.node.inputs:
            if given is not None and given.values is None:
                see(given, number)
        for made in step.node.outputs:
            see(made, number)
    for tensor in graph.outputs:
        see(tensor, len(steps))
    blocks = [Block(key=f"t{root}", bytes=size[root], first=born[root], last=dies[root]) for root in born]
    pairs = []
    for number, step in enumerate(steps):
        if step.scratch_bytes:
            blocks.append(Block(key=f"s{number}", bytes=step.scratch_bytes, first=number, last=number))
        own = step.node.outputs[0].index
        result = roots.get(own, own)
        for index, overlap in step.overlaps.items():
            read = roots.get(index, index)
            if dies[read] == number and born[result] == number and read != result:
                pairs.append(Pair(made=f"t{result}", read=f"t{read}", gap=overlap.gap, multiple=overlap.multiple))
    return plan(blocks, pairs)
