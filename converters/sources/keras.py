"""Keras `.keras` and `.h5` models become a float TFLite file by the stock converter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from converters.contracts import Captured, CaptureRequest
from converters.loading.file_kind import file_kind
from converters.loading.input_shapes import settle
from converters.loading.keras_model import LoadedKeras, dtype_name, load_keras
from converters.loading.model_file import model_path, remember, remembered, run_model
from converters.loading.recommender_file import recognised
from converters.loading.tensorflow_export import export_tflite
from converters.loading.tflite_facts import check_plain, final_operators
from edge_deploy.core.errors import Refusal, Unsupported
from edge_deploy.core.tensor import Layout, TensorInfo

__all__ = ["WARM", "accepts", "capture", "run_float"]

WARM = ("tensorflow", "keras")
"""What a process that captures may import before it is asked to."""


def accepts(request: CaptureRequest) -> bool:
    """Whether the file is HDF5 or a Keras archive."""
    return file_kind(Path(request.source)) in ("hdf5", "keras")


def capture(request: CaptureRequest, folder: Path) -> Captured:
    """Load in safe mode and convert to float TFLite.

    Raises:
        BadInput: Damaged file, NaN weights, open dimensions.
        Unsupported: Layers that carry code, custom classes, operators without a TFLite counterpart.
        ToolchainError: Keras or the converter failed otherwise.
    """
    path = model_path(request, "a Keras file")
    loaded = load_keras(path)
    _refuse_recurrent(loaded, request.source)
    layout: Layout = "NCHW" if _is_channels_first(loaded) else "NHWC"
    inputs = tuple(
        replace(info, layout=layout if len(info.shape) == 4 else None) for info in settle(loaded.inputs, request)
    )
    batches = request.batches if any(info.shape[0] == -1 for info in inputs) else (inputs[0].shape[0],)
    file = folder / "float.tflite"
    export_tflite(loaded, inputs, batches, file)
    check_plain(file, where=request.source)
    outputs = _outputs(loaded, inputs[0].shape[0], layout, final_operators(file))
    state = remember(path, folder)
    kind = _kind(loaded)
    recommender = None
    if kind == "recommender":
        recommender, inputs = recognised(file, inputs, folder / "recommender")
    return Captured(
        name=path.stem,
        framework="keras",
        kind=kind,
        folder=folder,
        inputs=inputs,
        recommender=recommender,
        outputs=outputs,
        batches=batches,
        float_tflite=file,
        state=state,
        notes=loaded.notes,
    )


def run_float(captured: Captured, feeds: Path, answers: Path) -> None:
    """Run the Keras model itself.

    Raises:
        BadInput: The feeds do not fit, or the model file is no longer there.
    """
    loaded = load_keras(remembered(captured))
    run_model(loaded.call, captured, [info.shape[0] for info in loaded.inputs], feeds, answers)


def _outputs(loaded: LoadedKeras, batch: int, layout: Layout, finals: dict[str, str]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name=name,
            shape=(batch, *(-1 if size is None else int(size) for size in tensor.shape[1:])),
            dtype=dtype_name(tensor),
            layout=layout if len(tensor.shape) == 4 else None,
            meaning="probability" if finals.get(name) in ("SOFTMAX", "LOGISTIC") else None,
        )
        for name, tensor in zip(loaded.output_names, loaded.model.outputs, strict=True)
    )


def _is_channels_first(loaded: LoadedKeras) -> bool:
    return any(getattr(layer, "data_format", None) == "channels_first" for layer in loaded.layers())


def _refuse_recurrent(loaded: LoadedKeras, where: str) -> None:
    """Refuse layers that become loops, by the names that the user gave them; an unrolled one is a plain graph."""
    refusals = tuple(
        Refusal(
            layer=layer.name,
            op=type(layer).__name__,
            reason="a recurrent layer: only plain feed-forward graphs are converted",
            remedy="build it with unroll=True for a fixed number of steps, or replace it by convolutions",
        )
        for layer in loaded.layers()
        if {"RNN", "Bidirectional"} & {kind.__name__ for kind in type(layer).__mro__} and not _is_unrolled(layer)
    )
    if refusals:
        raise Unsupported(f"{where}: is not a plain feed-forward model.", refusals=refusals)


def _is_unrolled(layer: Any) -> bool:
    inner = getattr(layer, "forward_layer", layer)  # of a Bidirectional
    return bool(getattr(inner, "unroll", False))


def _kind(loaded: LoadedKeras) -> Literal["cnn", "recommender", "generic"]:
    kinds = {type(layer).__name__ for layer in loaded.layers()}
    if any("Conv" in kind for kind in kinds):
        return "cnn"
    return "recommender" if "Embedding" in kinds else "generic"
