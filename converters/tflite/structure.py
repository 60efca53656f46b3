"""A float TFLite file as the quantizer looks at it: operators with their layer names, float tensors, twins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from converters.tflite.flatbuffer import constant, dtype_name, has_data, op_name, tensor_name

__all__ = ["Node", "View", "make_names_unique", "twin_of", "views"]

# Which input of an operator tells one network from another of the same operators.
WEIGHT_SLOTS = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "TRANSPOSE_CONV": 1,
    "FULLY_CONNECTED": 1,
    "EMBEDDING_LOOKUP": 1,
    "GATHER": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator of one subgraph; `layer` is the name of its first output in the float file."""

    graph: int
    position: int
    kind: str
    layer: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operator: Any

    @property
    def key(self) -> tuple[int, int]:
        """Subgraph and position."""
        return self.graph, self.position


@dataclass(frozen=True, slots=True)
class View:
    """One subgraph."""

    model: Any
    index: int
    nodes: tuple[Node, ...]

    @property
    def graph(self) -> Any:
        """The `SubGraphT`."""
        return self.model.subgraphs[self.index]

    def tensor(self, index: int) -> Any:
        """The `TensorT`."""
        return self.graph.tensors[index]

    def is_float(self, index: int) -> bool:
        """Whether the tensor exists and holds float32 values."""
        return index >= 0 and dtype_name(self.tensor(index)) == "float32"

    def is_constant(self, index: int) -> bool:
        """Whether the tensor exists and is stored in the file."""
        return index >= 0 and has_data(self.model, self.tensor(index))

    def is_activation(self, index: int) -> bool:
        """Whether the tensor is computed, or given, as float32 values."""
        return self.is_float(index) and not self.is_constant(index)

    def values(self, index: int) -> Any:
        """Values of a constant."""
        return constant(self.model, self.tensor(index))

    def float_inputs(self, node: Node) -> Iterator[int]:
        """Float inputs of an operator, constants included."""
        return (index for index in node.inputs if self.is_float(index))


def twin_of(model: Any, index: int) -> int:
    """The first subgraph with the same operators and weights in the same order: one network at several batch sizes."""
    return next(other for other in range(index + 1) if other == index or _are_twins(model, other, index))


def _are_twins(model: Any, one: int, other: int) -> bool:
    left, right = model.subgraphs[one], model.subgraphs[other]
    if len(left.inputs) != len(right.inputs) or len(left.operators) != len(right.operators):
        return False
    return all(
        op_name(model, a) == op_name(model, b)
        and len(a.outputs) == len(b.outputs)
        and _weights_are_equal(model, left, a, right, b)
        for a, b in zip(left.operators, right.operators, strict=True)
    )


def _weights_are_equal(model: Any, left: Any, a: Any, right: Any, b: Any) -> bool:
    slot = WEIGHT_SLOTS.get(op_name(model, a))
    if slot is None:
        return True
    buffers = [int(graph.tensors[op.inputs[slot]].buffer) for graph, op in ((left, a), (right, b))]
    if buffers[0] == buffers[1]:
        return True
    one, other = (model.buffers[buffer].data for buffer in buffers)
    if one is None or other is None or len(one) != len(other):
        return False
    return bytes(one) == bytes(other)


def views(model: Any) -> tuple[View, ...]:
    """All subgraphs; operators of a twin bear the layer names of the first one, so that rules meet both."""
    found: list[View] = []
    for index, graph in enumerate(model.subgraphs):
        twin = twin_of(model, index)
        nodes = []
        for position, operator in enumerate(graph.operators):
            outputs = tuple(int(i) for i in operator.outputs)
            layer = found[twin].nodes[position].layer if twin < index else tensor_name(graph.tensors[outputs[0]])
            inputs = tuple(int(i) for i in operator.inputs)
            kind = op_name(model, operator)
            nodes.append(
                Node(
                    graph=index,
                    position=position,
                    kind=kind,
                    layer=layer,
                    inputs=inputs,
                    outputs=outputs,
                    operator=operator,
                )
            )
        found.append(View(model, index, tuple(nodes)))
    return tuple(found)


def make_names_unique(model: Any) -> None:
    """Number tensors of one subgraph that share a name, and name those that have none: names identify layers."""
    for graph in model.subgraphs:
        seen: set[str] = set()
        for index, tensor in enumerate(graph.tensors):
            wanted = tensor_name(tensor) or f"tensor_{index}"
            name, count = wanted, 1
            while name in seen:
                count += 1
                name = f"{wanted}#{count}"
            seen.add(name)
            tensor.name = name.encode()
