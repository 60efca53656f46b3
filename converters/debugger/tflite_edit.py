"""TFLite files for looking into a network: one that takes operators' inputs from outside, one that adds errors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from converters.tflite.flatbuffer import add_opcode, add_tensor, dtype_name, read_model, schema, write_model

__all__ = ["first_graph", "write_forced", "write_with_errors"]


def first_graph(model: Any) -> Any:
    """The subgraph behind the first signature."""
    return model.subgraphs[int(model.signatureDefs[0].subgraphIndex)]


def write_forced(source: Path, slots: Sequence[tuple[int, int]], out: Path) -> dict[tuple[int, int], str]:
    """The file with these operands of operators as further inputs of the first signature.

    Args:
        slots: (operator, operand), each a computed tensor or an input.

    Returns:
        The name of the new input for each.
    """
    model = read_model(source)
    graph = first_graph(model)
    names: dict[tuple[int, int], str] = {}
    for position, slot in slots:
        operator = graph.operators[position]
        like = graph.tensors[operator.inputs[slot]]
        name = f"forced/{position}/{slot}"
        index = add_tensor(graph, name, tuple(int(size) for size in like.shape), dtype_name(like), like=like)
        graph.tensors[index].quantization = like.quantization
        inputs = [int(i) for i in operator.inputs]
        inputs[slot] = index
        operator.inputs = inputs
        _add_input(model, graph, name, index)
        names[position, slot] = name
    write_model(model, out)
    return names


def write_with_errors(source: Path, tensors: Collection[int], out: Path) -> dict[int, str]:
    """The float file with an addition behind each of these tensors of the first signature.

    Args:
        tensors: float32 inputs or results of operators, by index.

    Returns:
        The name of the input that is added, for each tensor.
    """
    model = read_model(source)
    graph = first_graph(model)
    opcode = add_opcode(model, "ADD", 1)
    names: dict[int, str] = {}
    changed: dict[int, int] = {}
    operators: list[Any] = []

    def add(tensor: int) -> None:
        if tensor not in tensors or tensor in changed:
            return
        like = graph.tensors[tensor]
        shape = tuple(int(size) for size in (like.shape if like.shape is not None else ()))
        name = f"error/{tensor}"
        error = add_tensor(graph, name, shape, "float32", like=like)
        result = add_tensor(graph, f"with_{name}", shape, "float32", like=like)
        operators.append(_addition(opcode, tensor, error, result))
        _add_input(model, graph, name, error)
        names[tensor], changed[tensor] = name, result

    for tensor in [int(i) for i in graph.inputs]:
        add(tensor)
    for operator in graph.operators:
        operator.inputs = [changed.get(int(i), int(i)) for i in operator.inputs]
        operators.append(operator)
        for tensor in operator.outputs:
            add(int(tensor))
    graph.operators = operators
    graph.outputs = [changed.get(int(i), int(i)) for i in graph.outputs]
    for entry in model.signatureDefs[0].outputs:
        entry.tensorIndex = changed.get(int(entry.tensorIndex), int(entry.tensorIndex))
    write_model(model, out)
    return names


def _addition(opcode: int, tensor: int, error: int, result: int) -> Any:
    fb = schema()
    operator = fb.OperatorT()
    operator.opcodeIndex = opcode
    operator.inputs, operator.outputs = [tensor, error], [result]
    operator.builtinOptionsType = fb.BuiltinOptions.AddOptions
    operator.builtinOptions = fb.AddOptionsT()
    return operator


def _add_input(model: Any, graph: Any, name: str, index: int) -> None:
    graph.inputs = [*(int(i) for i in graph.inputs), index]
    entry = schema().TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    model.signatureDefs[0].inputs = [*model.signatureDefs[0].inputs, entry]
