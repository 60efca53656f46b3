"""Write what the manifest says of inputs and outputs into the .tflite file too, as TFLite Metadata.

Layout, mean and std of images and the names of classes then go with the file itself, and everything that reads the
standard's metadata finds them. The flatbuffer (schema TFLMetadata 1.0, identifier M001) is written field by field, the
label file is packed behind the model as a zip archive, as the standard wants it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters.tflite.flatbuffer import MAP_LIMIT, add_buffer, read_model, schema, write_model
from edge_deploy.core.artifact import Artifact, FileEntry
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from runtimes.formats.tflite_metadata import AXIS_LABELS, ENTRY, IDENTIFIER, IMAGE_PROPERTIES, NORMALIZATION

__all__ = ["with_metadata"]

FEATURE_PROPERTIES = 1
RGB, GRAYSCALE = 1, 2
AXES = {"NHWC": ("batch", "height", "width", "channels"), "NCHW": ("batch", "channels", "height", "width")}
OLDEST_READER = "1.0.0"
SAME_TIME = (1980, 1, 1, 0, 0, 0)  # so that the same conversion gives the same bytes


def with_metadata(artifact: Artifact, folder: Path) -> Artifact:
    """Add metadata to the artifact's model file and return the artifact with the file's new size and digest.

    Left as it is where there is nothing to say: no image, no mean and std, no class names. So is a file of more than
    256 MB (tables), which would have to be read into memory as a whole.
    """
    told = [info for each in artifact.signatures for info in (*each.inputs, *each.outputs)]
    path = folder / artifact.model_file.path
    if not any(info.layout or info.mean or info.labels for info in told) or path.stat().st_size > MAP_LIMIT:
        return artifact
    model = read_model(path)
    labels: dict[tuple[str, ...], str] = {}
    content = _content(artifact, model, labels)
    entry = next((each for each in model.metadata or () if each.name == ENTRY.encode()), None)
    if entry is None:
        entry = schema().MetadataT()
        entry.name, entry.buffer = ENTRY.encode(), add_buffer(model, content)
        model.metadata = [*(model.metadata or ()), entry]
    else:
        model.buffers[entry.buffer].data = content
    write_model(model, path)
    if labels:
        with path.open("ab") as file:
            file.write(_archive(labels, start=path.stat().st_size))
    new = FileEntry(path=path.name, role="model", bytes=path.stat().st_size, sha256=file_sha256(path))
    return replace(artifact, files=tuple(new if each.role == "model" else each for each in artifact.files))


def _archive(labels: dict[tuple[str, ...], str], *, start: int) -> bytes:
    """The label files as the zip archive that stands at byte `start` of the model file."""
    memory = io.BytesIO(bytes(start))
    memory.seek(start)
    with zipfile.ZipFile(memory, "a", zipfile.ZIP_STORED) as archive:
        for names, file in labels.items():
            archive.writestr(zipfile.ZipInfo(file, SAME_TIME), "\n".join(names) + "\n")
    return memory.getvalue()[start:]


def _content(artifact: Artifact, model: Any, labels: dict[tuple[str, ...], str]) -> Any:
    import numpy as np

    write = _Writer()
    graphs = []
    by_graph = {int(definition.subgraphIndex): definition for definition in model.signatureDefs or ()}
    for index, graph in enumerate(model.subgraphs):
        definition = by_graph.get(index)
        key = definition.signatureKey.decode() if definition is not None else ""
        signature = next((each for each in artifact.signatures if each.name == key), artifact.signatures[0])
        borders = []
        for indices, infos, named in (
            (graph.inputs, signature.inputs, definition.inputs if definition is not None else ()),
            (graph.outputs, signature.outputs, definition.outputs if definition is not None else ()),
        ):
            names = {int(each.tensorIndex): each.name.decode() for each in named}
            known = {info.name: info for info in infos}
            in_order = [known.get(names.get(int(place), "")) for place in indices]
            borders.append(
                write.vector(
                    [
                        write.tensor(info or _unknown(graph, place), labels)
                        for info, place in zip(in_order, indices, strict=True)
                    ]
                )
            )
        name = write.text(key or artifact.name)
        graphs.append(write.table({0: name, 2: borders[0], 3: borders[1]}))
    listed = write.vector(graphs)
    text = f"{artifact.kind}, {artifact.spec.recipe}, converted by edge-deploy"
    texts = {0: write.text(artifact.name), 1: write.text(text), 7: write.text(OLDEST_READER)}
    return np.frombuffer(write.finish(write.table({**texts, 3: listed})), np.uint8)


def _unknown(graph: Any, place: int) -> TensorInfo:
    tensor = graph.tensors[int(place)]
    return TensorInfo(name=tensor.name.decode(errors="replace"), shape=(), dtype="float32")


class _Writer:
    """Tables of the schema by field number; offsets of children come before their parents, as flatbuffers want."""

    def __init__(self) -> None:
        self._builder = require("flatbuffers", extra="run-tflite").Builder(1024)

    def text(self, value: str) -> int:
        """A string."""
        offset: int = self._builder.CreateString(value)
        return offset

    def table(self, fields: dict[int, int], numbers: dict[int, tuple[str, int]] | None = None) -> int:
        """A table with these offsets, and numbers as (kind, value)."""
        builder = self._builder
        builder.StartObject(1 + max((*fields, *(numbers or {})), default=-1))
        for slot, offset in fields.items():
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, (kind, value) in (numbers or {}).items():
            add: Callable[[int, int, int], None] = getattr(builder, f"Prepend{kind}Slot")
            add(slot, value, 0)
        end: int = builder.EndObject()
        return end

    def vector(self, offsets: Sequence[int]) -> int:
        """A vector of tables or strings."""
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        end: int = self._builder.EndVector()
        return end

    def floats(self, values: Sequence[float]) -> int:
        """A vector of float32."""
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        end: int = self._builder.EndVector()
        return end

    def tensor(self, info: TensorInfo, labels: dict[tuple[str, ...], str]) -> int:
        """TensorMetadata: name, axes, kind of content, normalization, class names."""
        fields = {0: self.text(info.name)}
        if info.layout is not None:
            fields[2] = self.vector([self.text(axis) for axis in AXES[info.layout]])
        fields[3] = self._content(info)
        if info.mean:
            options = self.table({0: self.floats(info.mean), 1: self.floats(info.std)})
            fields[4] = self.vector([self.table({1: options}, {0: ("Uint8", NORMALIZATION)})])
        if info.labels:
            name = labels.setdefault(info.labels, f"labels{len(labels) or ''}.txt")
            told = {0: self.text(name), 1: self.text("names of the classes, one a line")}
            fields[6] = self.vector([self.table(told, {2: ("Int8", AXIS_LABELS)})])
        return self.table(fields)

    def _content(self, info: TensorInfo) -> int:
        # The standard's images are NHWC, of one or three channels; other tensors are features.
        channels = info.shape[3] if info.layout == "NHWC" else 0
        if channels not in (1, 3):
            return self.table({1: self.table({})}, {0: ("Uint8", FEATURE_PROPERTIES)})
        size = self.table({}, {0: ("Uint32", max(0, info.shape[2])), 1: ("Uint32", max(0, info.shape[1]))})
        image = self.table({1: size}, {0: ("Int8", RGB if channels == 3 else GRAYSCALE)})
        return self.table({1: image}, {0: ("Uint8", IMAGE_PROPERTIES)})

    def finish(self, root: int) -> bytes:
        """All bytes."""
        self._builder.Finish(root, file_identifier=IDENTIFIER)
        return bytes(self._builder.Output())
