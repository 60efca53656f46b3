"""A float TFLite file, whatever it came from, as a recommender where its structure is one."""

from __future__ import annotations

from pathlib import Path

from converters.recommender.from_tflite import recognise_tflite
from converters.recommender.model import save
from edge_deploy.core.tensor import TensorInfo

__all__ = ["recognised"]


def recognised(file: Path, inputs: tuple[TensorInfo, ...], folder: Path) -> tuple[Path | None, tuple[TensorInfo, ...]]:
    """Folder of the recommender, None where the structure is another; inputs with the bounds of their ids."""
    found = recognise_tflite(file, inputs)
    if found is None:
        return None, inputs
    model, arrays = found
    save(model, arrays, folder)
    return folder, model.inputs
