"""A float `.tflite` file, of whatever converter, is taken as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.contracts import Captured, CaptureRequest
from converters.loading.file_kind import file_kind
from converters.loading.float16 import unpack_halves
from converters.loading.float_run import run_feeds
from converters.loading.input_shapes import settle
from converters.loading.model_file import model_path, remember, remembered
from converters.loading.tflite_captured import captured_from_tflite
from converters.loading.tflite_facts import check_unquantized
from converters.tflite.flatbuffer import read_model, write_model
from converters.tflite.signatures import ensure_signatures
from edge_deploy.core.errors import BadInput

__all__ = ["accepts", "capture", "run_float"]


def accepts(request: CaptureRequest) -> bool:
    """Whether the file is a TFLite model."""
    return file_kind(Path(request.source)) == "tflite"


def capture(request: CaptureRequest, folder: Path) -> Captured:
    """Copy the file, with a signature where it has none and float16 weights as float32.

    Raises:
        BadInput: Damaged file, open dimensions, a batch that the file does not have.
        Unsupported: A file that is quantized already, or holds loops, branches or custom operators.
    """
    from runtimes.formats.tflite import lint, read_signatures

    path = model_path(request, "a .tflite file")
    problems = lint(path)
    if problems:
        raise BadInput(*(f"{request.source}: is damaged: {problem}" for problem in problems))
    check_unquantized(path, where=request.source)
    model = read_model(path)
    ensure_signatures(model)
    notes = unpack_halves(model)
    file = folder / "float.tflite"
    write_model(model, file)
    inputs = settle(read_signatures(file)[0].inputs, request)
    state = remember(file, folder)
    return captured_from_tflite(
        file,
        name=path.stem,
        where=request.source,
        inputs=inputs,
        batches=(inputs[0].shape[0],),
        state=state,
        notes=notes,
    )


def run_float(captured: Captured, feeds: Path, answers: Path) -> None:
    """Run the float file itself, by the runtime's builtin kernels.

    Raises:
        BadInput: The feeds do not fit, or the file is no longer there.
    """
    from runtimes.session import open_session

    session = open_session(remembered(captured), kernels="builtin", trusted=True)
    names = [info.name for info in session.signature.inputs]
    outputs = [info.name for info in session.signature.outputs]

    def call(arrays: list[np.ndarray]) -> list[np.ndarray]:
        answer = session.run(dict(zip(names, arrays, strict=True)))
        return [answer[name] for name in outputs]

    run_feeds(call, inputs=captured.inputs, outputs=captured.outputs, feeds=feeds, answers=answers)
