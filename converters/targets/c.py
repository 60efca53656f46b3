"""The C target: INT8 and INT4 models as self-contained C99 projects for microcontrollers, by way of a TFLite file."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from converters.c.from_tflite import lower_integer_file
from converters.contracts import Lowered, LowerRequest
from converters.support import lookup
from edge_deploy.core.artifact import LayerOutcome, Signature
from edge_deploy.core.errors import BadInput, Unsupported

__all__ = ["FORMAT", "lower", "try_out"]

FORMAT = "c"
TFLITE = "model.tflite"
BORDER = (
    "inputs and outputs of a C project are INT8 (or ids): MODEL_INPUT_0_SCALE and its kin in model.h say what they mean"
)


def lower(request: LowerRequest) -> Lowered:
    """Write the project into the request's folder: quantized as for TFLite with INT8 at the border, then as C.

    Raises:
        Unsupported: float32, several batch sizes, or layers that cannot become what was asked, each by name.
        BadInput: Weights hold NaN, calibration data is missing or does not fit.
        ToolchainError: The stock converter or the interpreter failed.
    """
    name = request.captured.name
    if request.spec.activations != "int8":
        reason = lookup(FORMAT, request.spec.recipe, "*").reason
        raise Unsupported(f"{name}: {reason}; choose --precision int8 or int4 with --calibrate.")
    others = [rule for rule in request.spec.rules if rule.activations not in (None, "int8") or rule.weight_bits == 16]
    if others:
        named = ", ".join(rule.source or f"rule {rule.pattern}" for rule in others)
        raise Unsupported(f"{name}: {named}: C projects are full-integer with INT8 activations; leave such rules out.")
    if request.calibration is None:
        raise BadInput(
            f"{name}: a full-integer C project needs calibration data; pass --calibrate with typical samples."
        )
    if len(request.captured.batches) > 1:
        raise Unsupported(
            f"{name}: a C project serves one batch size, not {request.captured.batches}; name one --batch."
        )
    with TemporaryDirectory(prefix="edge-deploy-c-") as folder:
        spec = replace(request.spec, io="int8", for_device="mcu")
        # Found by name as every target is; this one is a neighbour that lowers for us.
        tflite = import_module("converters.targets.tflite")
        integer: Lowered = tflite.lower(replace(request, spec=spec, folder=Path(folder), packs_tables=True))
        lowered = lower_integer_file(Path(folder) / TFLITE, request.folder, name=name)
    stored = {outcome.layer: outcome for outcome in lowered.outcomes}
    return replace(
        lowered,
        signatures=(_informed(lowered, integer),),
        outcomes=tuple(_as_stored(outcome, stored.get(outcome.layer)) for outcome in integer.outcomes),
        toolchain={**integer.toolchain, **lowered.toolchain},
        warnings=(BORDER, *(w for w in integer.warnings if "XNNPACK" not in w), *lowered.warnings),
    )


def try_out(request: LowerRequest, held: Path) -> Any:
    """Float and quantized outputs on the samples of the npz `held`, by the TFLite file that the project is made of."""
    spec = replace(request.spec, io="int8", for_device="mcu")
    return import_module("converters.targets.tflite").try_out(replace(request, spec=spec, packs_tables=True), held)


def _informed(lowered: Lowered, integer: Lowered) -> Signature:
    """The project's signature with what only the source knows: layouts, meanings, bounds of ids."""
    return replace(lowered.signatures[0], inputs=integer.signatures[0].inputs, outputs=integer.signatures[0].outputs)


def _as_stored(outcome: LayerOutcome, stored: LayerOutcome | None) -> LayerOutcome:
    """What was asked, with the bytes that the C arrays have; a table's layer has a name of the look-up's there."""
    bits, size = (outcome.weight_bits, outcome.weight_bytes)
    if stored is not None:
        bits, size = stored.weight_bits, stored.weight_bytes
    return replace(outcome, weight_bits=bits, weight_bytes=size, runs_on="generated C")
