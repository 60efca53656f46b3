"""Tell what a model file is from its first bytes, whatever its name says. Standard library only."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = ["FileKind", "describe", "file_kind"]

FileKind: TypeAlias = Literal[
    "damaged-zip",
    "empty",
    "folder",
    "hdf5",
    "keras",
    "missing",
    "npz",
    "onnx",
    "pt2",
    "pte",
    "saved-model",
    "tflite",
    "torch-checkpoint",
    "torchscript",
    "unknown",
    "unreadable",
    "zip",
]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LEGACY_TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_DESCRIPTIONS: dict[FileKind, str] = {
    "damaged-zip": "begins like a zip archive (.keras, .pt2) but is truncated or damaged; copy it again",
    "empty": "is empty",
    "folder": "is a folder that holds no saved_model.pb; name a model file",
    "hdf5": "is an HDF5 file",
    "keras": "is a Keras archive",
    "missing": "no such file or folder",
    "npz": "is a NumPy .npz archive: data, not a model",
    "onnx": "looks like an ONNX model",
    "pt2": "is a torch.export archive",
    "pte": "is an ExecuTorch program: the result of a conversion, not a source",
    "saved-model": "is a TensorFlow SavedModel",
    "tflite": "is a TFLite model",
    "torch-checkpoint": (
        "is a PyTorch checkpoint: weights without a model; pass it as --weights with --source package.module:factory"
    ),
    "torchscript": (
        "is a TorchScript archive, which cannot be exported; pass --source package.module:factory, or save the module "
        "with torch.export.save as .pt2"
    ),
    "unknown": "is no model file that edge-deploy knows",
    "unreadable": "cannot be read; check its permissions",
    "zip": "is a zip archive without a model that edge-deploy knows",
}


def describe(kind: FileKind) -> str:
    """What was found, and where it helps what to do, as the end of a sentence that begins with the file's name."""
    return _DESCRIPTIONS[kind]


def file_kind(path: Path) -> FileKind:
    """What the file or folder at `path` is; never raises for a damaged file."""
    if path.is_dir():
        markers = ("saved_model.pb", "saved_model.pbtxt")
        return "saved-model" if any((path / marker).exists() for marker in markers) else "folder"
    if not path.exists():
        return "missing"
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return "unreadable"
    if not head:
        return "empty"
    if head.startswith(HDF5_MAGIC):
        return "hdf5"
    if head.startswith(b"PK"):
        return _zip_kind(path)
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[4:6] == b"ET":
        return "pte"
    if head.startswith(LEGACY_TORCH_MAGIC) or _is_safetensors(head):
        return "torch-checkpoint"
    # An ONNX file has no magic: it is a protobuf that begins with its small integer ir_version.
    if (
        len(head) > 2
        and head[0] == 0x08
        and head[1] < 0x20
        and (path.suffix.lower() == ".onnx" or head[2] in (0x12, 0x3A))
    ):
        return "onnx"
    return "unknown"


def _is_safetensors(head: bytes) -> bool:
    return head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32


def _zip_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return "damaged-zip"
    inner = {name.partition("/")[2] for name in entries} | entries
    if "config.json" in entries:
        return "keras"
    if "archive_format" in inner or "models/model.json" in inner:
        return "pt2"
    if "constants.pkl" in inner:
        return "torchscript"
    if "data.pkl" in inner:
        return "torch-checkpoint"
    if entries and all(name.endswith(".npy") for name in entries):
        return "npz"
    return "zip"
