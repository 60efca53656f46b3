"""Look into a model file or an artifact's model, wherever it comes from."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import BadInput
from runtimes.folder import artifact_file, check_files, read_artifact
from runtimes.inspect import FileReport
from runtimes.inspect import inspect as inspect_file

__all__ = ["FileReport", "inspect"]


def inspect(path: Path | str, *, gpu: bool = False, public_key: Path | str | None = None) -> FileReport:
    """What the file, or the model file of the artifact folder, contains, and whether its runtime loads it.

    Args:
        gpu: Ask TensorFlow Lite's analysis too whether its GPU delegate takes it.
        public_key: PEM file of the Ed25519 key that must have signed the artifact's manifest.

    Raises:
        BadInput: Not a .tflite or .pte file or an artifact, damaged, or another file than the manifest says.
    """
    path = Path(path)
    if not path.is_dir():
        if public_key is not None:
            raise BadInput(f"{path}: a bare file has no signed manifest; give the artifact's folder.")
        return inspect_file(path, gpu=gpu)
    if not (path / MANIFEST).is_file():
        raise BadInput(f"{path}: is no artifact (no {MANIFEST}); name a .tflite or .pte file, or an artifact's folder.")
    artifact = read_artifact(path, public_key=public_key)
    check_files(path, artifact)
    return inspect_file(artifact_file(path, artifact.model_file.path), gpu=gpu)
