"""TensorFlow SavedModels, of TensorFlow 2 and 1, become a float TFLite file by the stock converter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.contracts import Captured, CaptureRequest
from converters.loading.file_kind import file_kind
from converters.loading.float_run import run_feeds
from converters.loading.input_shapes import settle
from converters.loading.saved_model import load_saved_model
from converters.loading.tensorflow_export import export_tflite
from converters.loading.tflite_captured import captured_from_tflite
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import read_json, write_json

__all__ = ["accepts", "capture", "run_float"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    path: Path


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
    path = Path(request.source).resolve()
    if request.weights is not None:
        raise BadInput(f"--weights {request.weights}: a SavedModel brings its own weights; leave the option out.")
    loaded = load_saved_model(path)
    inputs = settle(loaded.inputs, request)
    batches = request.batches if any(info.shape[0] == -1 for info in inputs) else (inputs[0].shape[0],)
    file = folder / "float.tflite"
    export_tflite(loaded, inputs, batches, file)
    state = folder / "source.json"
    write_json(_State(path=path), state)
    return captured_from_tflite(
        file, name=path.name, where=request.source, inputs=inputs, batches=batches, state=state, notes=loaded.notes
    )


def run_float(captured: Captured, feeds: Path, answers: Path) -> None:
    """Run the SavedModel itself.

    Raises:
        BadInput: The feeds do not fit, or the folder is no longer there.
    """
    assert captured.state is not None
    loaded = load_saved_model(read_json(_State, captured.state).path)
    inputs = tuple(
        replace(info, shape=(own.shape[0], *info.shape[1:]))
        for info, own in zip(captured.inputs, loaded.inputs, strict=True)
    )
    run_feeds(
        lambda arrays: [np.asarray(value) for value in loaded.call(arrays)],
        inputs=inputs,
        outputs=captured.outputs,
        feeds=feeds,
        answers=answers,
    )
