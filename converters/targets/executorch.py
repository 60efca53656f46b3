"""ExecuTorch: a captured model becomes `model.pte`, with `model.ptd` and `quantized.pt2` where they are needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.contracts import Captured, Lowered, LowerRequest
from edge_deploy.core.artifact import LayerFacts, LayerOutcome, Signature
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.layer_errors import LayerErrors
from edge_deploy.core.passes import BIASES, FOLD, ROUNDING, PassRecord
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.core.toolchain import versions

__all__ = ["FORMAT", "layer_errors", "lower", "try_out"]

FORMAT = "executorch"
WARM = (
    "torch",
    "torchao.quantization.pt2e.quantize_pt2e",
    "executorch.exir",
    "executorch.backends.xnnpack.partition.xnnpack_partitioner",
    "executorch.backends.xnnpack.quantizer.xnnpack_quantizer",
    "ai_edge_litert.schema_py_generated",
)
"""What a process that lowers may import before it is asked to."""
PASS_SAMPLES = {ROUNDING: 512, BIASES: 128}
"""How many calibration samples passes look at, spread over the set; ranges are those of all."""
_MINIMUM_RUNTIME = "executorch 1.0"


def lower(request: LowerRequest) -> Lowered:
    """Write the files of `request` into its folder.

    Raises:
        Unsupported: Layers, inputs or outputs that cannot become what was asked, by name.
        BadInput: The captured program or the calibration data cannot be used.
        ToolchainError: torch.export, PT2E or ExecuTorch fails.
    """
    if request.captured.recommender is not None:
        from converters.executorch import recommender

        lowered: Lowered = recommender.lower(request)
        return lowered
    return _lower_program(request)


def layer_errors(request: LowerRequest) -> LayerErrors:
    """Each layer of the program that `lower` wrote against the float one, on the first calibration samples.

    Never raises: where the two cannot be compared, `method` says why.
    """
    try:
        if request.captured.recommender is not None:
            from converters.executorch import recommender_errors

            return recommender_errors.layer_errors(request)
        from converters.executorch import layer_errors as program_errors

        return program_errors.layer_errors(request)
    except Exception as error:  # noqa: BLE001  # the conversion has succeeded; this is only a report on it
        return LayerErrors(layers=(), method=f"not compared ({type(error).__name__}: {error})")


def try_out(
    request: LowerRequest, held: Path
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[PassRecord, ...]]:
    """Float and quantized outputs on the samples of the npz `held`: by these passes are judged."""
    from converters.passes.trial_program import try_program

    return try_program(request, held, _prepare)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A float program with everything that is decided before it is quantized.

    Attributes:
        request: With rules bound to the program's layers, and `idle` what bound to none.
    """

    request: LowerRequest
    program: Any
    choices: Sequence[Any]
    idle: tuple[str, ...]
    passes: tuple[PassRecord, ...]


def _prepare(request: LowerRequest) -> _Ready:
    from converters.executorch.embeddings import NOT_FOR_MCU
    from converters.executorch.half import beyond_half
    from converters.executorch.layers import check_finite_weights, layer_traits, weighted_layers
    from converters.executorch.program import export, load_graph, tidy
    from converters.executorch.rewrites import rewrite
    from converters.executorch.widths import choose_widths
    from converters.passes.float_program import change_float_program

    captured, spec = request.captured, request.spec
    graph = load_graph(captured)
    folded = rewrite(graph, fold=FOLD in spec.passes or not spec.needs_ranges)
    check_finite_weights(graph)
    tidy(graph)
    told = PassRecord(name=FOLD, applied=folded > 0, detail=f"{folded} batch norms")
    passes = (told, *change_float_program(graph, request)) if folded else change_float_program(graph, request)
    program = export(graph, captured.inputs, captured.batches)
    layers = weighted_layers(program.module(check_guards=False))
    has_tables = any(layer.kind == "embedding" for layer in layers)
    if has_tables and spec.for_device == "mcu" and not spec.is_float:
        raise Unsupported(NOT_FOR_MCU)
    spec, idle = spec.bound(layer_traits(layers))
    request = replace(request, spec=spec)
    large = beyond_half(program, layers) if spec.weight_bits == 16 else {}
    choices = choose_widths(layers, spec, is_recommender=captured.kind == "recommender", beyond_half=large)
    return _Ready(request=request, program=program, choices=choices, idle=idle, passes=passes)


def _lower_program(request: LowerRequest) -> Lowered:
    from converters.executorch.embeddings import NEEDS_KERNELS
    from converters.executorch.flow import flow_graph, read_flow
    from converters.executorch.half import halved, with_half_weights
    from converters.executorch.lowering import write_program
    from converters.executorch.outcomes import outcomes_of
    from converters.executorch.program import export, tidy
    from converters.executorch.routes import is_dynamic, quantize_program
    from converters.executorch.shared_weights import note_shared
    from converters.passes.kept_changes import changes_entry
    from runtimes.formats.pte import read_facts

    ready = _prepare(request)
    request, program, choices = ready.request, ready.program, ready.choices
    captured, spec = request.captured, request.spec
    inputs, outputs = captured.inputs, captured.outputs
    shared: dict[str, str] = {}
    if not spec.is_float and request.calibration is None and not is_dynamic(request):
        raise BadInput(f"{captured.name}: {spec.recipe} needs calibration data: give --calibrate.")
    if spec.is_float:
        written = write_program(program, request.folder, keep=program)
    elif any(choice.width == "float16" for choice in choices):
        graph = halved(program.module(check_guards=False))
        tidy(graph)
        program = export(graph, inputs, captured.batches)
        with with_half_weights():
            written = write_program(program, request.folder, keep=program)
    else:
        made = quantize_program(program, choices, request)
        inputs, outputs, shared = made.inputs, made.outputs, made.shared
        written = write_program(made.program, request.folder, stored4=made.stored4, keep=made.program)
        program = made.program
    facts = read_facts(request.folder / "model.pte")
    outcomes = outcomes_of(choices, facts, float_allowed=spec.fallback_bits == 32)
    outcomes = note_shared(outcomes, shared, request.folder / "model.pte")
    warnings = _warnings(spec, facts, {outcome.layer for outcome in outcomes})
    if is_dynamic(request) and not spec.is_float:
        outcomes, warnings = tuple(_dynamic(outcome) for outcome in outcomes), ()
    if any(fact.op.startswith("quantized_decomposed::embedding") for fact in facts):
        warnings = (*warnings, NEEDS_KERNELS)
    coarse = [info.name for info in outputs if info.meaning == "probability" and info.dtype == "int8"]
    if coarse:
        warnings = (
            *warnings,
            f"an INT8 probability resolves only 1/256: {', '.join(coarse)}; take --io float for more.",
        )
    sizes = {outcome.layer: outcome.weight_bytes for outcome in outcomes}
    return Lowered(
        files=(*written.files, *changes_entry(request.folder)),
        signatures=_signatures(captured, inputs, outputs),
        graph=flow_graph(
            read_flow(program.module(check_guards=False), _names(inputs), _names(outputs)), inputs, outputs, sizes
        ),
        outcomes=outcomes,
        toolchain=versions("torch", "torchao", "executorch"),
        minimum_runtime=_MINIMUM_RUNTIME,
        warnings=(*ready.idle, *warnings),
        passes=ready.passes,
    )


def _names(infos: tuple[TensorInfo, ...]) -> tuple[str, ...]:
    return tuple(info.name for info in infos)


def _dynamic(outcome: LayerOutcome) -> LayerOutcome:
    """The outcome of a linear tells how its activations are quantized."""
    is_linear = "linear" in outcome.op and outcome.got in ("int8", "int4")
    return replace(outcome, got=f"{outcome.got}, dynamic int8 activations") if is_linear else outcome


def _signatures(
    captured: Captured, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]
) -> tuple[Signature, ...]:
    """One for each batch size; all call the method "forward"."""

    def sized(infos: tuple[TensorInfo, ...], batch: int) -> tuple[TensorInfo, ...]:
        return tuple(replace(info, shape=tuple(batch if size < 0 else size for size in info.shape)) for info in infos)

    several = len(captured.batches) > 1
    return tuple(
        Signature(
            name=f"batch_{batch}" if several else "forward", inputs=sized(inputs, batch), outputs=sized(outputs, batch)
        )
        for batch in dict.fromkeys(captured.batches)
    )


_MOVES = ("Convert", "StaticTranspose", "StaticReshape", "StaticSlice")


def _warnings(spec: QuantSpec, facts: Sequence[LayerFacts], told: Collection[str]) -> tuple[str, ...]:
    """Operators that compute in float although the recipe is not float, beside the layers `told` by their outcomes."""
    if not spec.needs_ranges:
        return ()
    floating = [
        fact.layer
        for fact in facts
        if fact.activation_dtype == "float32" and fact.layer not in told and not fact.op.startswith(_MOVES)
    ]
    if not floating:
        return ()
    shown = ", ".join(floating[:8]) + (f" and {len(floating) - 8} more" if len(floating) > 8 else "")
    return (f"computed in float32: {shown}",)
