"""What a benchmark measures: an artifact folder with all its files, or a bare model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.device import Device
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.core.units import format_bytes
from runtimes.folder import artifact_file, read_artifact

__all__ = ["Subject", "check_fit", "read_subject"]

FORMATS = {".tflite": "tflite", ".pte": "executorch", ".onnx": "onnx", ".pt2": "torch", ".c": "c"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured: an artifact folder, or a model file that may not be ours.

    Attributes:
        files: File, its name on the device, and its sha256; the manifest first, or else the model.
        is_folder: The session opens the folder, not the first file.
        source: The float model's inputs; empty for a bare file.
    """

    path: Path
    name: str
    format: str
    recipe: str
    sha256: str
    model_bytes: int
    files: tuple[tuple[Path, str, str], ...]
    is_folder: bool = False
    source: tuple[TensorInfo, ...] = ()


def check_fit(subjects: Sequence[Subject], device: Device) -> None:
    """Refuse before anything is sent what the device cannot hold."""
    rooms = [("flash", device.flash_bytes), ("memory", device.ram_bytes if device.flash_bytes is None else None)]
    problems = [
        f"{subject.path}: {format_bytes(subject.model_bytes)}, {device.name} has {format_bytes(room)} of {what}."
        for subject in subjects
        # The text of a C project is no firmware yet; the linker says whether that fits.
        if subject.format != "c"
        for what, room in rooms
        if room is not None and subject.model_bytes > room
    ]
    if problems:
        raise BadInput(*problems)


def read_subject(path: Path) -> Subject:
    """What stands at `path`: a folder with a manifest, or a model file.

    Raises:
        BadInput: Neither.
    """
    if path.is_dir():
        artifact = read_artifact(path)
        manifest = (path / MANIFEST, MANIFEST, file_sha256(path / MANIFEST))
        return Subject(
            path=path,
            name=artifact.name,
            format=artifact.format,
            recipe=artifact.spec.recipe,
            sha256=artifact.model_file.sha256,
            model_bytes=artifact.device_bytes,
            files=(manifest, *((artifact_file(path, e.path), e.path, e.sha256) for e in artifact.files)),
            is_folder=True,
            source=artifact.source_inputs,
        )
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder.")
    if path.suffix not in FORMATS:
        raise BadInput(f"{path}: {path.suffix or 'no'} suffix: must be one of {', '.join(FORMATS)}, or a folder.")
    beside = [path, *_belonging(path)]
    return Subject(
        path=path,
        name=path.name,
        format=FORMATS[path.suffix],
        recipe="",
        sha256=file_sha256(path),
        model_bytes=sum(file.stat().st_size for file in beside),
        files=tuple((file, file.name, file_sha256(file)) for file in beside),
    )


def _belonging(path: Path) -> list[Path]:
    """What a bare model file cannot do without: weights of a program, the kernels of a C project."""
    if path.suffix == ".pte":
        return sorted(path.parent.glob(f"{path.stem}*.ptd"))
    if path.suffix == ".c":
        return sorted(each for each in path.parent.iterdir() if each.suffix in (".c", ".h") and each != path)
    return []
