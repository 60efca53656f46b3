"""Drop what nothing refers to any more: tensors, buffers and operator codes of an edited model."""

from __future__ import annotations

from typing import Any

from converters.tflite.flatbuffer import schema

__all__ = ["compact"]


def compact(model: Any) -> None:
    """Remove unread tensors, then unread buffers and operator codes; everything is renumbered in place."""
    for index, graph in enumerate(model.subgraphs):
        _compact_tensors(model, index, graph)
    _compact_opcodes(model)
    _compact_buffers(model)


def _compact_tensors(model: Any, index: int, graph: Any) -> None:
    used = {int(i) for i in (*graph.inputs, *graph.outputs)}
    for operator in graph.operators:
        for group in (operator.inputs, operator.outputs, operator.intermediates):
            used |= {int(i) for i in (group if group is not None else ()) if i >= 0}
    definitions = [d for d in model.signatureDefs or () if int(d.subgraphIndex) == index]
    for definition in definitions:
        used |= {int(entry.tensorIndex) for entry in (*definition.inputs, *definition.outputs)}
    for tensor_index in sorted(used):
        details = getattr(graph.tensors[tensor_index].quantization, "details", None)
        if details is not None and hasattr(details, "scales"):  # blockwise: its scales are a tensor of their own
            used.add(int(details.scales))
    order = sorted(used)
    place = {old: new for new, old in enumerate(order)}
    place[-1] = -1
    graph.tensors = [graph.tensors[old] for old in order]
    for tensor in graph.tensors:
        details = getattr(tensor.quantization, "details", None)
        if details is not None and hasattr(details, "scales"):
            details.scales = place[int(details.scales)]
    graph.inputs = [place[int(i)] for i in graph.inputs]
    graph.outputs = [place[int(i)] for i in graph.outputs]
    for operator in graph.operators:
        operator.inputs = [place[int(i)] for i in operator.inputs]
        operator.outputs = [place[int(i)] for i in operator.outputs]
        if operator.intermediates is not None:
            operator.intermediates = [place[int(i)] for i in operator.intermediates]
    for definition in definitions:
        for entry in (*definition.inputs, *definition.outputs):
            entry.tensorIndex = place[int(entry.tensorIndex)]


def _compact_opcodes(model: Any) -> None:
    used = sorted({int(op.opcodeIndex) for graph in model.subgraphs for op in graph.operators})
    place = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[old] for old in used]
    for graph in model.subgraphs:
        for operator in graph.operators:
            operator.opcodeIndex = place[int(operator.opcodeIndex)]


def _compact_buffers(model: Any) -> None:
    buffers = [schema().BufferT()]  # by convention buffer 0 is empty: that of every variable
    place: dict[int, int] = {}

    def moved(old: int) -> int:
        if old not in place:
            data = model.buffers[old].data
            empty = data is None or len(data) == 0
            place[old] = 0 if empty else len(buffers)
            if not empty:
                buffers.append(model.buffers[old])
        return place[old]

    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = moved(int(tensor.buffer))
    for entry in model.metadata or ():
        entry.buffer = moved(int(entry.buffer))
    model.metadataBuffer = None
    model.buffers = buffers
