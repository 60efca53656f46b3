"""What a .tflite file says of itself: signatures, graph, and the facts of every layer, read from its bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from edge_deploy.core.artifact import LayerFacts, Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import Layer, LayerGraph
from runtimes.calling import pick_signature
from runtimes.formats.tflite_file import FileOperator, FileSubgraph, FileTensor, TfliteFile, read_tflite
from runtimes.formats.tflite_kernels import kernel_library
from runtimes.formats.tflite_layers import (
    Weights,
    count_macs,
    find_weights,
    has_row_scales,
    is_constant,
    layer_names,
    makers,
    stored_bytes,
    tensor_names,
)
from runtimes.formats.tflite_lint import file_warnings, lint, lint_problems
from runtimes.formats.tflite_signatures import file_signatures, tensor_info

__all__ = ["facts_of", "lint", "read_facts", "read_graph", "read_signatures", "warnings"]

Granularity = Literal["none", "per-tensor", "per-channel", "per-row", "blockwise"]
LOOK_UPS = ("EMBEDDING_LOOKUP", "EMBEDDING_LOOKUP_SPARSE", "GATHER")


def read_signatures(path: Path) -> tuple[Signature, ...]:
    """The ways to call the file; one called "main" when it has no signature of its own.

    Raises:
        BadInput: Not a .tflite file, or a damaged one.
        Unsupported: An input or output has a type that sessions do not carry.
    """
    return file_signatures(read_tflite(path))


def read_facts(path: Path) -> tuple[LayerFacts, ...]:
    """What the file says of each operator, named by its first output tensor.

    Raises:
        BadInput: Not a .tflite file, or a damaged one.
    """
    return facts_of(read_tflite(path))


def warnings(path: Path) -> tuple[str, ...]:
    """What is sound but will surprise somebody, e.g. offset buffers on a microcontroller.

    Raises:
        BadInput: Not a .tflite file, or a damaged one.
    """
    return file_warnings(read_tflite(path))


def facts_of(model: TfliteFile) -> tuple[LayerFacts, ...]:
    """The facts of a file that has been read.

    Operators of further subgraphs follow those of the first as "subgraph/layer", unless all their weights have
    been told already: a second signature, for another batch size, shares them.
    """
    facts: list[LayerFacts] = []
    told: set[int] = set()
    for number, graph in enumerate(model.subgraphs):
        made_by = makers(graph)
        found = [
            (name, operator, find_weights(model, graph, operator, made_by))
            for name, operator in zip(layer_names(graph), graph.operators, strict=True)
        ]
        buffers = {weights.tensor.buffer for _, _, weights in found if weights is not None}
        if number and buffers and buffers <= told:
            continue
        told |= buffers
        prefix = f"{graph.name or number}/" if number else ""
        facts += [_facts(model, graph, prefix + name, operator, weights) for name, operator, weights in found]
    return tuple(facts)


def read_graph(path: Path, *, signature: str | None = None) -> LayerGraph:
    """The layers behind a signature, by default the first, with multiply-accumulates and weight bytes.

    Raises:
        BadInput: Damaged, or no such signature.
        Unsupported: A tensor has a type that we have no word for.
    """
    model = read_tflite(path)
    problems = lint_problems(model)
    if problems:
        raise BadInput(*(f"{path}: {problem}" for problem in problems))
    chosen = pick_signature(path, file_signatures(model), signature)
    number = next((found.subgraph for found in model.signatures if found.key == chosen.name), 0)
    graph = model.subgraphs[number]
    names = tensor_names(graph)
    counted: set[int] = set()
    layers = []
    for name, operator in zip(layer_names(graph), graph.operators, strict=True):
        tensors = {index: graph.tensors[index] for index in operator.inputs if index >= 0}
        constants = {tensor.buffer: tensor for tensor in tensors.values() if is_constant(model, tensor)}
        weight_bytes = sum(_all_bytes(model, graph, t) for b, t in constants.items() if b not in counted)
        counted |= set(constants)
        made_earlier = (i for i, t in tensors.items() if not is_constant(model, t) and not t.is_variable)
        layers.append(
            Layer(
                name=name,
                op=operator.op,
                inputs=tuple(names[index] for index in made_earlier),
                outputs=tuple(tensor_info(graph.tensors[i], name=names[i]) for i in operator.outputs if i >= 0),
                weight_bytes=weight_bytes,
                macs=count_macs(graph, operator),
            )
        )
    return LayerGraph(
        inputs=tuple(tensor_info(graph.tensors[index], name=names[index]) for index in graph.inputs),
        outputs=tuple(names[i] for i in graph.outputs if not is_constant(model, graph.tensors[i])),
        layers=tuple(layers),
    )


def _facts(
    model: TfliteFile, graph: FileSubgraph, name: str, operator: FileOperator, weights: Weights | None
) -> LayerFacts:
    first = operator.outputs[0] if operator.outputs else -1
    activation = graph.tensors[first].dtype if 0 <= first < len(graph.tensors) else "float32"
    runs_on = kernel_library(model, graph, operator, weights)
    if weights is None:
        return LayerFacts(layer=name, op=operator.op, activation_dtype=activation, runs_on=runs_on)
    count = math.prod(max(0, size) for size in weights.tensor.shape)
    stored = stored_bytes(model, weights.tensor)
    return LayerFacts(
        layer=name,
        op=operator.op,
        weight_dtype=weights.tensor.dtype,
        weight_bits=stored * 8 / count if count else 0.0,
        weight_count=count,
        weight_bytes=stored,
        granularity="per-row" if has_row_scales(graph, operator) else _granularity(operator, weights.tensor),
        activation_dtype=activation,
        weight_compute=_weight_compute(operator, weights, activation),
        runs_on=runs_on,
    )


def _weight_compute(operator: FileOperator, weights: Weights, activation: str) -> Literal["", "float32", "dynamic"]:
    """Whether the weights are widened in front of the operator, or meet inputs that its kernel quantizes."""
    stored = weights.tensor.dtype
    if stored == "float32" or activation != "float32":
        return ""
    if weights.index not in operator.inputs:
        return "float32"
    return "" if operator.op in LOOK_UPS else "dynamic"


def _granularity(operator: FileOperator, weights: FileTensor) -> Granularity:
    if weights.blockwise is not None:
        return "blockwise"
    scales = len(weights.scale)
    if scales == 0:
        return "none"
    axis = weights.quantized_dimension
    # One scale for a layer of one channel is both; we say what a layer of more channels would have.
    one_channel = 0 <= axis < len(weights.shape) and weights.shape[axis] == 1 and operator.op not in LOOK_UPS
    if scales == 1 and not one_channel:
        return "per-tensor"
    return "per-row" if operator.op in LOOK_UPS else "per-channel"


def _all_bytes(model: TfliteFile, graph: FileSubgraph, tensor: FileTensor) -> int:
    """Bytes of a constant with the scales that lie in a tensor of their own."""
    stored = stored_bytes(model, tensor)
    if tensor.blockwise is not None and 0 <= tensor.blockwise.scales < len(graph.tensors):
        stored += stored_bytes(model, graph.tensors[tensor.blockwise.scales])
    return stored
