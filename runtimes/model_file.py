"""What the place of a bare model file says: which backend opens it, and which weights go with it."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.errors import BadInput

__all__ = ["BACKENDS", "backend_of", "weights_beside"]

BACKENDS = {".tflite": "litert", ".pte": "executorch", ".onnx": "onnxruntime", ".pt2": "torch-eager", ".c": "c-host"}


def backend_of(path: Path) -> str:
    """Module name in `runtimes/backends` of the file's type.

    Raises:
        BadInput: It has another type.
    """
    if path.suffix not in BACKENDS:
        raise BadInput(f"{path}: unknown type of file; must end in {', '.join(BACKENDS)}, or be an artifact folder.")
    return BACKENDS[path.suffix]


def weights_beside(path: Path) -> tuple[Path, ...]:
    """The `.ptd` of the same name beside a bare `.pte`, which it may need; empty where there is none."""
    data = path.with_suffix(".ptd")
    return (data,) if path.suffix == ".pte" and data.is_file() else ()
