"""What a .tflite file says of its inputs and outputs beside the graph: TFLite Metadata and the files packed behind it.

The metadata is a flatbuffer of its own (schema TFLMetadata, identifier M001) in the buffer that the entry
TFLITE_METADATA names; label files lie in a zip archive behind the model's bytes.
https://ai.google.dev/edge/litert/models/metadata
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from typing import Literal

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.formats.flat_table import FlatTable, root_table
from runtimes.formats.tflite_file import TfliteFile

__all__ = ["ENTRY", "IDENTIFIER", "TensorNote", "metadata_notes", "noted"]

ENTRY = "TFLITE_METADATA"
IDENTIFIER = b"M001"
IMAGE_PROPERTIES, NORMALIZATION, AXIS_LABELS = 2, 1, 2
MOST_LABEL_BYTES = 1 << 22
Border = Literal["input", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorNote:
    """What the metadata says of one tensor."""

    is_image: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


def metadata_notes(model: TfliteFile) -> dict[tuple[int, Border, int], TensorNote]:
    """Notes by subgraph, border and place in the subgraph's inputs or outputs; empty without metadata.

    Raises:
        BadInput: The metadata or the files behind it are damaged.
    """
    index = next((buffer for name, buffer in model.metadata if name == ENTRY), None)
    if index is None:
        return {}
    if not 0 <= index < len(model.buffers):
        raise BadInput(f"{model.path}: its metadata stand in buffer {index}, of {len(model.buffers)}.")
    buffer = model.buffers[index]
    with model.path.open("rb") as file:
        file.seek(buffer.offset)
        content = file.read(buffer.bytes)
    if content[4:8] != IDENTIFIER:
        raise BadInput(f"{model.path}: its metadata begin with {content[4:8]!r}, must be {IDENTIFIER!r}.")
    root = root_table(content, where=f"{model.path}: metadata")
    notes: dict[tuple[int, Border, int], TensorNote] = {}
    for subgraph, table in enumerate(root.tables(3)):
        borders: tuple[tuple[Border, int], ...] = (("input", 2), ("output", 3))
        for border, slot in borders:
            for place, entry in enumerate(table.tables(slot)):
                notes[subgraph, border, place] = _note(model, entry)
    return notes


def noted(info: TensorInfo, note: TensorNote | None) -> TensorInfo:
    """`info` with what the note says; values for all channels at once are repeated for each."""
    if note is None:
        return info
    mean, std = note.mean, note.std
    if len(info.shape) == 4 and info.shape[3] > 0:
        mean, std = (values * info.shape[3] if len(values) == 1 else values for values in (mean, std))
    layout = "NHWC" if note.is_image and len(info.shape) == 4 else info.layout
    return replace(info, layout=layout, mean=mean, std=std, labels=note.labels or info.labels)


def _note(model: TfliteFile, tensor: FlatTable) -> TensorNote:
    content = tensor.table(3)
    is_image = content is not None and content.number(0, "u8") == IMAGE_PROPERTIES
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    for unit in tensor.tables(4):
        options = unit.table(1)
        if unit.number(0, "u8") == NORMALIZATION and options is not None:
            mean = tuple(options.vector(0, "f32").tolist())
            std = tuple(options.vector(1, "f32").tolist())
    files = [file.text(0) for file in tensor.tables(6) if file.number(2, "i8") == AXIS_LABELS]
    return TensorNote(is_image=is_image, mean=mean, std=std, labels=_labels(model, files[0]) if files else ())


def _labels(model: TfliteFile, name: str) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(model.path) as archive:
            if archive.getinfo(name).file_size > MOST_LABEL_BYTES:
                raise BadInput(f"{model.path}: its label file {name} is larger than {MOST_LABEL_BYTES} bytes.")
            text = archive.read(name).decode("utf-8")
    except (zipfile.BadZipFile, KeyError, OSError, RuntimeError, ValueError, EOFError, NotImplementedError) as error:
        raise BadInput(f"{model.path}: its metadata name the label file {name}, which cannot be read.") from error
    return tuple(text.splitlines())
