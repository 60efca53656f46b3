"""How a .tflite file wants to be called: its signatures, or its primary subgraph where it has none."""

from __future__ import annotations

from typing import get_args

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.tensor import DType, TensorInfo
from runtimes.formats.tflite_file import FileSubgraph, FileTensor, TfliteFile
from runtimes.formats.tflite_metadata import TensorNote, metadata_notes, noted

__all__ = ["PRIMARY", "file_signatures", "tensor_info"]

PRIMARY = "main"
"""Name of the only signature of a file that has none of its own."""
DTYPES = get_args(DType)
MANY_SCALES = 4096


def file_signatures(model: TfliteFile) -> tuple[Signature, ...]:
    """The signatures in file order, each with its tensors in call order.

    Raises:
        BadInput: An index points nowhere.
        Unsupported: An input or output has a type that no session of ours carries, e.g. a string.
    """
    if not model.subgraphs:
        raise BadInput(f"{model.path}: has no subgraph.")
    notes = _notes(model)
    found = []
    for signature in model.signatures:
        if not 0 <= signature.subgraph < len(model.subgraphs):
            raise BadInput(f"{model.path}: signature {signature.key}: subgraph {signature.subgraph} does not exist.")
        graph = model.subgraphs[signature.subgraph]
        found.append(
            Signature(
                name=signature.key,
                inputs=_tensors(model, signature.subgraph, _in_call_order(signature.inputs, graph.inputs), notes),
                outputs=_tensors(model, signature.subgraph, _in_call_order(signature.outputs, graph.outputs), notes),
            )
        )
    if not found:
        graph = model.subgraphs[0]
        inputs, outputs = _named(graph, graph.inputs, "input"), _named(graph, graph.outputs, "output")
        inputs_info, outputs_info = _tensors(model, 0, inputs, notes), _tensors(model, 0, outputs, notes)
        found.append(Signature(name=PRIMARY, inputs=inputs_info, outputs=outputs_info))
    return tuple(found)


def tensor_info(tensor: FileTensor, *, name: str = "") -> TensorInfo:
    """The tensor as a value of ours, under another name where one is given.

    Raises:
        Unsupported: Its type is none that we carry.
        BadInput: Its shape or quantization is malformed.
    """
    if tensor.dtype not in DTYPES:
        raise Unsupported(f"tensor {name or tensor.name}: type {tensor.dtype}: must be one of {', '.join(DTYPES)}.")
    scale = tuple(float(value) for value in tensor.scale[:MANY_SCALES])
    zero_point = tuple(int(value) for value in tensor.zero_point[:MANY_SCALES])
    if scale and not zero_point:
        zero_point = (0,) * len(scale)
    return TensorInfo(
        name=name or tensor.name,
        shape=tensor.dims,
        dtype=tensor.dtype,  # type: ignore[arg-type]  # checked against the literal's values above
        scale=scale,
        zero_point=zero_point[: len(scale)],
        quantized_dimension=tensor.quantized_dimension if len(scale) > 1 else None,
    )


def _in_call_order(named: tuple[tuple[str, int], ...], order: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
    # Files keep signature tensors sorted by name; the subgraph's list has the order of the source's arguments.
    places = {index: place for place, index in enumerate(order)}
    return tuple(sorted(named, key=lambda entry: places.get(entry[1], len(order))))


def _named(graph: FileSubgraph, indices: tuple[int, ...], fallback: str) -> tuple[tuple[str, int], ...]:
    names: list[str] = []
    for place, index in enumerate(indices):
        name = graph.tensors[index].name if 0 <= index < len(graph.tensors) else ""
        names.append(name if name and name not in names else f"{fallback}_{place}")
    return tuple(zip(names, indices, strict=True))


def _notes(model: TfliteFile) -> dict[tuple[int, int], TensorNote]:
    """Notes by subgraph and tensor; none where the metadata are damaged, which `tflite_lint` warns of."""
    try:
        notes = metadata_notes(model)
    except BadInput:
        return {}
    found = {}
    for (subgraph, border, place), note in notes.items():
        if subgraph < len(model.subgraphs):
            graph = model.subgraphs[subgraph]
            indices = graph.inputs if border == "input" else graph.outputs
            if place < len(indices):
                found[subgraph, indices[place]] = note
    return found


def _tensors(
    model: TfliteFile,
    subgraph: int,
    named: tuple[tuple[str, int], ...],
    notes: dict[tuple[int, int], TensorNote],
) -> tuple[TensorInfo, ...]:
    graph = model.subgraphs[subgraph]
    for name, index in named:
        if not 0 <= index < len(graph.tensors):
            raise BadInput(f"{model.path}: input or output {name}: tensor {index} does not exist.")
    return tuple(
        noted(tensor_info(graph.tensors[index], name=name), notes.get((subgraph, index))) for name, index in named
    )
