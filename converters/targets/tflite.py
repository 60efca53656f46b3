"""The TFLite target: float, full-integer INT8 and packed INT4 files from a float TFLite graph."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from converters.compress.trained_layers import usable_layers
from converters.contracts import Captured, Lowered, LowerRequest
from converters.passes.float_tflite import change_float_graph
from converters.passes.kept_changes import changes_entry, restore_tflite
from converters.tflite.calibrate import Calibration, calibrate, load_samples
from converters.tflite.choice import Choice
from converters.tflite.flatbuffer import read_model, write_model
from converters.tflite.hybrid import choose_hybrid, choose_tables, has_tables, quantize_hybrid
from converters.tflite.layer_traits import layer_traits
from converters.tflite.outcomes import layer_outcomes, precision_warnings
from converters.tflite.plan import choose
from converters.tflite.quantizer import Quantized, prepare, quantize_static
from converters.tflite.signatures import describe, ensure_signatures
from converters.tflite.structure import views
from converters.tflite.trained import trained_activations
from edge_deploy.core.artifact import FileEntry, LayerFacts
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.layer_errors import LayerErrors
from edge_deploy.core.passes import BIASES, ROUNDING, PassRecord
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.core.toolchain import versions
from runtimes.formats.tflite import read_facts, read_graph

__all__ = ["FORMAT", "layer_errors", "lower", "lower_file", "try_out"]

FORMAT = "tflite"
MODEL = "model.tflite"


def lower(request: LowerRequest) -> Lowered:
    """Write `model.tflite` into the request's folder.

    Raises:
        Unsupported: Layers that cannot become what was asked, each by name.
        BadInput: Weights hold NaN, calibration data is missing or does not fit.
        ToolchainError: The stock converter or the interpreter failed on the float model.
    """
    if request.captured.recommender is not None:
        module = import_module("converters.tflite.recommender")
        lowered: Lowered = module.lower(request)
        return lowered
    return lower_file(_float_file(request.captured, request.folder), request)


def _float_file(captured: Captured, folder: Path) -> Path:
    if captured.float_tflite is not None:
        return captured.float_tflite
    path: Path = import_module("converters.tflite.from_torch").float_tflite(captured, captured.folder)
    return path


def layer_errors(request: LowerRequest) -> LayerErrors:
    """Each layer of the file that `lower` wrote against the float file, on the first calibration samples."""
    from converters.tflite.layer_errors import layer_errors as compare

    samples = load_samples(request.calibration) if request.calibration is not None else None
    with TemporaryDirectory() as folder:
        if request.captured.recommender is not None:
            spec = spec_for_recipe("float32", for_device=request.spec.for_device)
            lower(replace(request, spec=spec, folder=Path(folder)))
            float_file = Path(folder) / MODEL
        else:
            model = prepare(_float_file(request.captured, Path(folder)))
            restore_tflite(model, request.folder)
            float_file = Path(folder) / "changed.tflite"
            write_model(model, float_file)
        return compare(float_file, request.folder / MODEL, samples, request.captured.inputs)


def try_out(
    request: LowerRequest, held: Path
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[PassRecord, ...]]:
    """Float and quantized outputs on the samples of the npz `held`: by these passes are judged."""
    from converters.passes.trial_tflite import try_out as try_file

    file_inputs = _as_in_file(request.captured, request.captured.inputs)
    float_file = _float_file(request.captured, request.captured.folder)
    return try_file(request, held, float_file=float_file, file_inputs=file_inputs)


def lower_file(float_file: Path, request: LowerRequest) -> Lowered:
    """Lower a float TFLite file; the part of `lower` behind the capture."""
    path = request.folder / MODEL
    if request.spec.is_float:
        model = read_model(float_file)
        ensure_signatures(model)
        write_model(model, path)
        return _lowered(request, model, path, {})
    model = prepare(float_file)
    spec, idle = request.spec.bound(layer_traits(views(model)))
    lowered = _lower_prepared(replace(request, spec=spec), model, path)
    return replace(lowered, warnings=(*idle, *lowered.warnings))


def _lower_prepared(request: LowerRequest, model: Any, path: Path) -> Lowered:
    if request.captured.kind != "cnn" and has_tables(model):
        return _lower_with_tables(request, model, path)
    by_layer: dict[str, Choice] = {}
    if request.spec.for_device == "phone" and has_tables(model):
        by_layer = _quantize_tables(model, request)
    quantized, passes = _quantize(model, request)
    write_model(quantized.model, path)
    by_layer = {**{quantized.layers[key]: choice for key, choice in quantized.plan.choices.items()}, **by_layer}
    lowered = _lowered(request, quantized.model, path, by_layer)
    return replace(lowered, passes=passes, files=(*lowered.files, *changes_entry(request.folder)))


def _quantize_tables(model: Any, request: LowerRequest) -> dict[str, Choice]:
    """Tables beside convolutions get rows like a recommender's; the rest of the graph is full-integer."""
    graphs = views(model)
    choices = choose_tables(graphs, request.spec)
    by_layer = {node.layer: choices[node.key] for view in graphs for node in view.nodes if node.key in choices}
    quantize_hybrid(model, choices, request.spec)
    return by_layer


def _lower_with_tables(request: LowerRequest, model: Any, path: Path) -> Lowered:
    """A recommender, or another graph with tables, whose structure was not recognised."""
    if request.spec.for_device == "mcu" or request.spec.io == "int8":
        raise Unsupported(
            f"{request.captured.name}: its structure is not one that can be emitted for microcontrollers or with INT8 "
            "inputs; only recognised recommenders (look-ups, MLPs, dot product or concatenation) can; use --for phone "
            "and float inputs."
        )
    graphs = views(model)
    choices = choose_hybrid(graphs, request.spec)
    by_layer = {node.layer: choices[node.key] for view in graphs for node in view.nodes if node.key in choices}
    quantize_hybrid(model, choices, request.spec)
    write_model(model, path)
    return _lowered(request, model, path, by_layer)


def _as_in_file(captured: Captured, infos: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """Inputs or outputs of the source as its float TFLite file has them: images of torch programs become NHWC."""
    if captured.float_tflite is not None:
        return infos
    adapted = import_module("converters.tflite.from_torch").adapted
    return tuple(adapted(info) for info in infos)


def _quantize(model: Any, request: LowerRequest) -> tuple[Quantized, tuple[PassRecord, ...]]:
    choices = choose(views(model), request.spec)  # refuse before the slow step
    passes = change_float_graph(model, request, _as_in_file(request.captured, request.captured.inputs))
    is_needed = any(choice.is_integer for choice in choices.values())
    calibration = _calibration(model, request) if is_needed else Calibration()
    trained = usable_layers(request.captured.folder, request.spec)
    quantized = quantize_static(
        model,
        request.spec,
        calibration.ranges,
        learned=trained_activations(views(model), trained.affine()) if trained is not None else None,
        learned_weights=trained.weights() if trained is not None else None,
        means=calibration.means if BIASES in request.spec.passes else None,
        covariances=calibration.covariances if ROUNDING in request.spec.passes else None,
    )
    return quantized, passes


def _calibration(model: Any, request: LowerRequest) -> Calibration:
    if request.calibration is None:
        raise BadInput(
            f"{request.captured.name}: INT8 activations need calibration data; pass --calibrate with samples like "
            "those the model will see."
        )
    # The interpreter must see the names and signatures that the model has in memory.
    named = request.folder / "float.partial.tflite"
    write_model(model, named)
    try:
        return calibrate(
            named,
            load_samples(request.calibration),
            request.captured.inputs,
            request.spec,
            file_inputs=_as_in_file(request.captured, request.captured.inputs),
        )
    finally:
        named.unlink()


def _minimum_runtime(facts: tuple[LayerFacts, ...]) -> str:
    """What older runtimes refuse, or were not tried with: packed INT4, scales by channel or row among floats."""
    weighted = [fact for fact in facts if fact.weight_count and fact.weight_dtype != "float32"]
    is_new = any(
        fact.weight_dtype == "int4"
        or fact.weight_compute == "dynamic"
        or (fact.weight_dtype == "float16" and fact.activation_dtype == "float16")
        or (fact.weight_compute == "float32" and fact.weight_dtype != "float16")
        for fact in weighted
    )
    return "ai-edge-litert 1.4" if is_new else "tflite-runtime 2.14"


def _lowered(request: LowerRequest, model: Any, path: Path, choices: dict[str, Choice]) -> Lowered:
    facts, graph = read_facts(path), read_graph(path)
    outcomes = layer_outcomes(facts, choices)
    entry = FileEntry(path=path.name, role="model", bytes=path.stat().st_size, sha256=file_sha256(path))
    return Lowered(
        files=(entry,),
        signatures=describe(
            model,
            _as_in_file(request.captured, request.captured.inputs),
            _as_in_file(request.captured, request.captured.outputs),
        ),
        graph=graph,
        outcomes=outcomes,
        toolchain=versions("ai-edge-litert", "flatbuffers", "tensorflow", "litert-torch"),
        minimum_runtime=_minimum_runtime(facts),
        warnings=precision_warnings(facts, graph),
    )
