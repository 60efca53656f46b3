"""The ways to call a TFLite file: signature definitions of the flatbuffer, in the terms of the source model."""

from __future__ import annotations

import dataclasses
from typing import Any

from converters.tflite.flatbuffer import dtype_name, schema, tensor_name
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import Layout, TensorInfo

__all__ = ["describe", "ensure_signatures", "match_inputs"]


def ensure_signatures(model: Any) -> None:
    """Give a file without any signature one for its first subgraph, named as its tensors are.

    Older files have none, and both the runtime's signature runners and ai-edge-quantizer go by signature.
    """
    if model.signatureDefs:
        return
    fb = schema()
    graph = model.subgraphs[0]

    def maps(indices: Any) -> list[Any]:
        entries = []
        for index in indices:
            entry = fb.TensorMapT()
            entry.name, entry.tensorIndex = tensor_name(graph.tensors[index]).encode(), int(index)
            entries.append(entry)
        return entries

    definition = fb.SignatureDefT()
    definition.signatureKey, definition.subgraphIndex = b"serving_default", 0
    definition.inputs, definition.outputs = maps(graph.inputs), maps(graph.outputs)
    model.signatureDefs = [definition]


def describe(model: Any, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> tuple[Signature, ...]:
    """The file's signatures, in its subgraphs' order of inputs and outputs.

    Args:
        inputs: The source's; what the file does not know (layout, id bounds, preprocessing) is taken over from them.
        outputs: The source's; meaning and labels are taken over.
    """
    found = []
    for definition in model.signatureDefs:
        graph = model.subgraphs[definition.subgraphIndex]
        read = tuple(_info(graph, entry) for entry in _in_order(definition.inputs, graph.inputs))
        made = tuple(_info(graph, entry) for entry in _in_order(definition.outputs, graph.outputs))
        key = _text(definition.signatureKey)
        found.append(Signature(name=key, inputs=_informed(read, inputs), outputs=_informed(made, outputs)))
    return tuple(found)


def match_inputs(signature: Signature, sources: tuple[TensorInfo, ...]) -> dict[str, TensorInfo]:
    """Signature input name to the source input that feeds it: by name where names agree, else by position.

    Raises:
        BadInput: Their numbers differ.
    """
    if len(signature.inputs) != len(sources):
        raise BadInput(
            f"signature {signature.name}: {len(signature.inputs)} inputs "
            f"({', '.join(info.name for info in signature.inputs)}); the source has {len(sources)}."
        )
    return dict(zip((info.name for info in signature.inputs), _matched(signature.inputs, sources), strict=True))


def _in_order(entries: Any, indices: Any) -> list[Any]:
    place = {int(index): position for position, index in enumerate(indices)}
    return sorted(entries, key=lambda entry: place.get(int(entry.tensorIndex), len(place)))


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def _info(graph: Any, entry: Any) -> TensorInfo:
    tensor = graph.tensors[entry.tensorIndex]
    shape = tensor.shapeSignature if tensor.shapeSignature is not None and len(tensor.shapeSignature) else tensor.shape
    quantization = tensor.quantization
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    if quantization is not None and quantization.scale is not None and len(quantization.scale):
        scale = tuple(float(value) for value in quantization.scale)
        zero_point = tuple(int(value) for value in quantization.zeroPoint)
    return TensorInfo(
        name=_text(entry.name),
        shape=tuple(int(size) for size in (shape if shape is not None else ())),
        dtype=dtype_name(tensor),  # type: ignore[arg-type]  # checked by TensorInfo's users
        scale=scale,
        zero_point=zero_point,
    )


def _matched(found: tuple[TensorInfo, ...], sources: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    by_name = {info.name: info for info in sources}
    if {info.name for info in found} == set(by_name):
        return tuple(by_name[info.name] for info in found)
    return sources


def _informed(found: tuple[TensorInfo, ...], sources: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    if len(found) != len(sources):
        return found
    return tuple(
        dataclasses.replace(
            info,
            layout=_layout(info, source),
            meaning=source.meaning,
            labels=source.labels,
            mean=source.mean,
            std=source.std,
            id_bounds=source.id_bounds,
        )
        for info, source in zip(found, _matched(found, sources), strict=True)
    )


def _layout(info: TensorInfo, source: TensorInfo) -> Layout | None:
    """Layout of the file's tensor: the source's, or the other one where only that fits the shape."""
    if source.layout is None or len(info.shape) != 4:
        return None
    size = source.shape[1:]
    other = (size[1], size[2], size[0]) if source.layout == "NCHW" else (size[2], size[0], size[1])
    if info.shape[1:] != size and info.shape[1:] == other:
        return "NHWC" if source.layout == "NCHW" else "NCHW"
    return source.layout
