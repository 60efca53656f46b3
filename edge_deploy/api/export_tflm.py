"""Sources for TensorFlow Lite Micro of an artifact or a bare .tflite file."""

from __future__ import annotations

from pathlib import Path

from converters.tflm.export import Exported
from converters.tflm.export import export_tflm as export
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import BadInput
from runtimes.folder import artifact_file, check_files, read_artifact

__all__ = ["Exported", "export_tflm"]


def export_tflm(artifact: Path | str, out: Path | str, *, force: bool = False) -> Exported:
    """Write C++ sources for the model into the new folder `out`.

    Args:
        force: Replace the folder where it exists.

    Raises:
        Unsupported: TensorFlow Lite Micro refuses operators; each is named with its layer.
        BadInput: No .tflite file, damaged, or `out` exists without `force`.
    """
    path = Path(artifact)
    name = path.stem
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise BadInput(f"{path}: is no artifact (no {MANIFEST}); name a .tflite file, or an artifact's folder.")
        found = read_artifact(path)
        check_files(path, found)
        inside = [entry.path for entry in found.files if entry.path.endswith(".tflite")]
        if not inside:
            raise BadInput(f"{path}: is a {found.format} artifact without a .tflite file; convert with --to tflite.")
        path, name = artifact_file(path, inside[0]), found.name
    if path.suffix != ".tflite" or not path.is_file():
        raise BadInput(f"{path}: must be a .tflite file, or the folder of an artifact that has one.")
    return export(path, Path(out), name=name, force=force)
