"""TensorFlow SavedModels, of TensorFlow 2 and 1, become a float TFLite file by the stock converter."""

from __future__ import annotations

from pathlib import Path

from converters.contracts import Captured, CaptureRequest
from converters.loading.file_kind import file_kind
from converters.loading.input_shapes import settle
from converters.loading.model_file import model_path, remember, remembered, run_model
from converters.loading.saved_model import load_saved_model
from converters.loading.tensorflow_export import export_tflite
from converters.loading.tflite_captured import captured_from_tflite

__all__ = ["WARM", "accepts", "capture", "run_float"]

WARM = ("tensorflow",)
"""What a process that captures may import before it is asked to."""


def accepts(request: CaptureRequest) -> bool:
    """Whether the folder holds a SavedModel."""
    return file_kind(Path(request.source)) == "saved-model"


def capture(request: CaptureRequest, folder: Path) -> Captured:
    """Load the serving signature and convert it to float TFLite.

    Raises:
        BadInput: Damaged folder, NaN weights, open dimensions, no signature to serve.
        Unsupported: Operators that reach beyond the model, or without a TFLite counterpart.
        ToolchainError: TensorFlow or its converter failed otherwise.
    """
    path = model_path(request, "a SavedModel")
    loaded = load_saved_model(path)
    inputs = settle(loaded.inputs, request)
    batches = request.batches if any(info.shape[0] == -1 for info in inputs) else (inputs[0].shape[0],)
    file = folder / "float.tflite"
    export_tflite(loaded, inputs, batches, file)
    state = remember(path, folder)
    return captured_from_tflite(
        file, name=path.name, where=request.source, inputs=inputs, batches=batches, state=state, notes=loaded.notes
    )


def run_float(captured: Captured, feeds: Path, answers: Path) -> None:
    """Run the SavedModel itself.

    Raises:
        BadInput: The feeds do not fit, or the folder is no longer there.
    """
    loaded = load_saved_model(remembered(captured))
    run_model(loaded.call, captured, [info.shape[0] for info in loaded.inputs], feeds, answers)
