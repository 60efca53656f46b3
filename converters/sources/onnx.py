"""`.onnx` files become a float TFLite file by onnx2tf, from a prepared copy and without any network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.contracts import Captured, CaptureRequest
from converters.loading.file_kind import file_kind
from converters.loading.input_shapes import settle
from converters.loading.model_file import model_path, remember, remembered, run_model
from converters.loading.onnx_export import export_onnx
from converters.loading.onnx_model import open_onnx, read_onnx, write_prepared
from converters.loading.tflite_captured import captured_from_tflite
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["accepts", "capture", "run_float"]


def accepts(request: CaptureRequest) -> bool:
    """Whether the file is an ONNX model."""
    return file_kind(Path(request.source)) == "onnx"


def capture(request: CaptureRequest, folder: Path) -> Captured:
    """Fix the shapes in a copy, and convert that.

    Raises:
        BadInput: Damaged file, NaN weights, open dimensions, several batch sizes.
        Unsupported: Loops that are no bags of embeddings, operators that TFLite does not have.
        ToolchainError: onnx2tf failed otherwise, or converted it wrongly.
    """
    path = model_path(request, "an ONNX file")
    if len(request.batches) > 1:
        raise BadInput(f"--batch {request.batches}: from ONNX one batch size at a time; convert once for each.")
    found = read_onnx(path)
    inputs = settle(found.inputs, request)
    prepared = folder / "prepared.onnx"
    write_prepared(path, inputs, prepared)
    file = folder / "float.tflite"
    export_onnx(prepared, inputs, found.output_names, file)
    state = remember(path, folder)
    captured = captured_from_tflite(
        file,
        name=path.stem,
        where=request.source,
        inputs=inputs,
        batches=(inputs[0].shape[0],),
        state=state,
        notes=(f"ONNX model of {len(inputs)} inputs converted by onnx2tf from a copy",),
    )
    return replace(captured, outputs=_source_outputs(prepared, captured.outputs))


def run_float(captured: Captured, feeds: Path, answers: Path) -> None:
    """Run the ONNX file itself.

    Raises:
        BadInput: The feeds do not fit, or the file is no longer there.
    """
    session = open_onnx(remembered(captured))
    names = [info.name for info in captured.inputs]
    outputs = [info.name for info in captured.outputs]
    own = {entry.name: entry.shape[0] for entry in session.get_inputs() if entry.shape}
    batches = [own[name] if isinstance(own[name], int) else -1 for name in names]
    run_model(
        lambda arrays: session.run(outputs, dict(zip(names, arrays, strict=True))), captured, batches, feeds, answers
    )


def _source_outputs(prepared: Path, outputs: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """The outputs as the ONNX model has them: images are NCHW."""
    shapes = {entry.name: tuple(entry.shape) for entry in open_onnx(prepared).get_outputs()}
    return tuple(
        replace(info, shape=shapes[info.name], layout="NCHW" if len(shapes[info.name]) == 4 else None)
        for info in outputs
    )
