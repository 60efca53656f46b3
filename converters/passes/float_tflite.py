"""The passes that change a float TFLite graph before it is calibrated."""

from __future__ import annotations

from typing import Any

from converters.contracts import LowerRequest
from converters.passes.equalise_tflite import equalise_model
from converters.passes.fold_tflite import fold_model
from converters.passes.kept_changes import Changes, LayerFactors, write_changes
from converters.tflite.calibrate import activations, load_samples
from converters.tflite.flatbuffer import write_model
from converters.tflite.plan import choose
from converters.tflite.structure import views
from edge_deploy.core.passes import EQUALISE, FOLD, PassRecord
from edge_deploy.core.tensor import TensorInfo

__all__ = ["EQUALISED_ON", "change_float_graph"]

EQUALISED_ON = 128
"""Calibration samples that ranges of channels are taken from, at most."""


def change_float_graph(
    model: Any,
    request: LowerRequest,
    file_inputs: tuple[TensorInfo, ...],
) -> tuple[PassRecord, ...]:
    """Apply the spec's passes on the float graph, in place; the result computes what it did.

    Args:
        model: As `converters.tflite.quantizer.prepare` gives it.
        file_inputs: The source's inputs as the file has them.
    """
    records = []
    folded, factors = 0, dict[str, LayerFactors]()
    if FOLD in request.spec.passes:
        folded = fold_model(model)
        if folded:
            records.append(PassRecord(name=FOLD, applied=True, detail=f"{folded} operators folded"))
    if EQUALISE in request.spec.passes and request.calibration is not None and request.spec.activations == "int8":
        named = request.folder / "named.partial.tflite"
        write_model(model, named)
        samples = {name: array[:EQUALISED_ON] for name, array in load_samples(request.calibration).items()}
        choices = choose(views(model), request.spec)
        bits = {
            node.layer: choices[node.key].bits
            for view in views(model)
            for node in view.nodes
            if node.key in choices and choices[node.key].bits < 16
        }
        runs = activations(named, samples, request.captured.inputs, file_inputs=file_inputs)
        found, factors = equalise_model(model, runs, bits, weight_scale=request.spec.weight_scale)
        named.unlink()
        detail = (
            f"{found.groups} sets of channels; largest over smallest range {found.ratio[0]:.1f} -> {found.ratio[1]:.1f}"
            if found.groups
            else "no set of channels gains"
        )
        records.append(PassRecord(name=EQUALISE, applied=found.groups > 0, detail=detail))
    if folded or factors:
        write_changes(request.folder, Changes(is_folded=folded > 0, factors=factors))
    return tuple(records)
