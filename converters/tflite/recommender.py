"""Lower a recognised recommender to TFLite by writing its operators directly: no framework, tables streamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.contracts import Lowered, LowerRequest
from converters.quantize.packing import pack_int4
from converters.quantize.uniform import quantize_symmetric, symmetric_scales
from converters.recommender.model import Dense, Recommender, load, source_key
from converters.recommender.resumable import Staging
from converters.recommender.trained import TrainedScale, load_trained, usable, with_trained_granularity
from converters.recommender.traits import recommender_traits
from converters.tflite.emit import Emitter
from converters.tflite.hybrid import NO_INT16
from converters.tflite.narrow import symmetric_only
from converters.tflite.recommender_check import check_tables
from converters.tflite.recommender_columns import TopColumns, order_columns, permuted
from converters.tflite.recommender_hybrid import Fully, add_hybrid_graph, signature_key
from converters.tflite.recommender_outcomes import outcomes_of
from converters.tflite.recommender_store import store_tables
from converters.tflite.recommender_tables import LARGEST_HALF, Fused, absolute_maxima, plan_tables
from edge_deploy.core.artifact import FileEntry, Signature
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.toolchain import versions

__all__ = ["check_weights", "emit_hybrid", "lower", "signatures_of"]

MODEL = "model.tflite"
# Tables with a scale per row as the schema has them load in tflite-runtime 2.14 and compute wrongly, without an error;
# ours, with the scales in a table of their own, do not, and what that runtime cannot run it refuses.
OLD_RUNTIME = (
    "tflite-runtime 2.14 refuses this file (per-channel dynamic layers, INT4 tables); use ai-edge-litert 1.4 or later"
)


def lower(request: LowerRequest) -> Lowered:
    """Write `model.tflite`: the hybrid graph for phones or the full-integer one for microcontrollers.

    Raises:
        Unsupported: A table or layer cannot become what was asked, each by name.
        BadInput: A table or weight holds NaN, or calibration data is missing.
        VerificationFailed: A written table does not hold its source's rows within half a step.
    """
    assert request.captured.recommender is not None
    model, arrays = load(request.captured.recommender)
    if request.captured.outputs:
        model = replace(model, output=replace(model.output, name=request.captured.outputs[0].name))
    is_mcu = request.spec.for_device == "mcu"
    traits = recommender_traits(model, table_op="GATHER" if is_mcu else "EMBEDDING_LOOKUP", dense_op="FULLY_CONNECTED")
    spec, idle = request.spec.bound(traits)
    trained = load_trained(request.captured.recommender)
    spec, kept_scales = with_trained_granularity(spec, model, trained)
    lowered = _lower(replace(request, spec=spec), model, arrays, trained)
    return replace(lowered, warnings=(*idle, *kept_scales, *lowered.warnings))


def _lower(
    request: LowerRequest, model: Recommender, arrays: Mapping[str, np.ndarray], trained: Mapping[str, TrainedScale]
) -> Lowered:
    if request.spec.for_device == "mcu":
        from converters.tflite.recommender_mcu import lower_mcu

        lowered: Lowered = lower_mcu(request, model, arrays)
        return lowered
    if request.spec.io == "int8":
        raise Unsupported("a hybrid recommender has float inputs and outputs: leave out --io int8, or use --for mcu.")
    _refuse_int16(model, request.spec)
    path = request.folder / MODEL
    home = request.captured.recommender
    assert home is not None, "the caller asks for recommenders only"
    staging = None if request.resume is None else Staging(folder=request.resume, key=source_key(home))
    plan, widths, digest = emit_hybrid(
        model, arrays, request.spec, path, batches=request.captured.batches, staging=staging, trained=trained
    )
    check_tables(path, model, arrays)
    return _lowered(request, model, path, plan, widths, digest)


def _refuse_int16(model: Recommender, spec: QuantSpec) -> None:
    layers = [(table.name, "EMBEDDING_LOOKUP") for table in model.tables]
    layers += [(dense.name, "FULLY_CONNECTED") for dense in (*model.bottom, *model.top)]
    refusals = tuple(
        Refusal(layer=name, op=op, reason=NO_INT16, remedy="take int8-dynamic")
        for name, op in layers
        if spec.settings_for(name).activations == "int16"
    )
    if refusals:
        raise Unsupported(refusals=refusals)


def emit_hybrid(
    model: Recommender,
    arrays: Mapping[str, np.ndarray],
    spec: QuantSpec,
    path: Path,
    *,
    batches: tuple[int, ...] = (1,),
    staging: Staging | None = None,
    trained: Mapping[str, TrainedScale] | None = None,
) -> tuple[tuple[Fused, ...], dict[str, tuple[int, str]], str]:
    """Write the hybrid file.

    Args:
        trained: Scales that training learned, by layer name; stored as they are.

    Returns:
        How tables are fused, for each Dense its bits and why they are not the ones asked, and the file's sha256.
    """
    check_weights(model, arrays)
    plan = plan_tables(model, spec, absolute_maxima(model, arrays))
    columns = _columns(model, spec, plan)
    widths = _dense_widths(model, arrays, spec, columns)
    emitter = Emitter("recommender")
    known = trained or {}
    stored = store_tables(emitter, model, arrays, plan, known)
    layers = {}
    for dense in (*model.bottom, *model.top):
        weight = np.asarray(arrays[dense.weight], np.float32)
        if dense is model.top[0]:
            weight = permuted(weight, columns)
        bits = widths[dense.name][0]
        is_dynamic = bits < 16 and spec.settings_for(dense.name, default=spec.mlp_bits).activations != "float"
        scales = usable(known, dense.name, bits)
        layers[dense.name] = replace(
            _fully(emitter, dense, weight, arrays, bits, scales, is_dynamic=is_dynamic),
            widens=bits < 32 and not is_dynamic,
        )
    for batch in batches:
        key = signature_key(batch, batches)
        add_hybrid_graph(emitter, model, stored, layers, columns, batch=batch, key=key)
    return plan, widths, emitter.write(path, staging)


def _columns(model: Recommender, spec: QuantSpec, plan: tuple[Fused, ...]) -> TopColumns:
    """The order of the first top layer's columns; one that keeps an even number of them where INT4 asks for that."""
    columns, first = order_columns(model, plan), model.top[0]
    odd_only_here = len(columns.permutation) % 2 > first.in_features % 2
    if odd_only_here and spec.bits_for(first.name, default=spec.mlp_bits) == 4:
        return order_columns(model, plan, banded=False)
    return columns


def check_weights(model: Recommender, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse fully connected layers that are not finite.

    Raises:
        BadInput: All such layers, by name.
    """
    problems = []
    for dense in (*model.bottom, *model.top):
        held = [arrays[dense.weight], *([arrays[dense.bias]] if dense.bias is not None else [])]
        if not all(np.isfinite(array).all() for array in held):
            problems.append(f"layer {dense.name}: its weights hold NaN or infinity.")
    if problems:
        raise BadInput(*problems)


def _dense_widths(
    model: Recommender, arrays: Mapping[str, np.ndarray], spec: QuantSpec, columns: TopColumns
) -> dict[str, tuple[int, str]]:
    """Bits of each layer, and the reason where they are not the ones asked.

    Raises:
        Unsupported: Layers that cannot have 4 bits, without a fallback.
    """
    widths, refusals = {}, []
    layers = (*model.bottom, *model.top)
    largest = {dense.name: float(np.abs(arrays[dense.weight]).max(initial=0.0)) for dense in layers}
    for dense in layers:
        bits = spec.bits_for(dense.name, default=spec.mlp_bits)
        reason = ""
        inputs = len(columns.permutation) if dense is model.top[0] else dense.in_features
        is_dynamic = spec.settings_for(dense.name, default=spec.mlp_bits).activations != "float"
        if bits == 16 and largest[dense.name] > LARGEST_HALF:
            reason = f"its largest weight {largest[dense.name]:.3g} is beyond float16"
            if spec.fallback_bits != 32:
                remedy = "pass --fallback float32 to leave it in float"
                refusals.append(Refusal(layer=dense.name, op="FULLY_CONNECTED", reason=reason, remedy=remedy))
            bits = 32
        if bits == 4 and inputs % 2 and is_dynamic:
            reason = f"XNNPACK runs INT4 only with an even number of inputs; this layer has {inputs}"
            if spec.fallback_bits is None:
                remedy = "allow --fallback int8, or give the layer 8 bits by a rule"
                refusals.append(Refusal(layer=dense.name, op="FULLY_CONNECTED", reason=reason, remedy=remedy))
            bits = spec.fallback_bits or 8
        widths[dense.name] = (bits, reason)
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    return widths


def _fully(
    emitter: Emitter,
    dense: Dense,
    weight: np.ndarray,
    arrays: Mapping[str, np.ndarray],
    bits: int,
    learned: np.ndarray | None,
    *,
    is_dynamic: bool,
) -> Fully:
    bias = np.zeros(dense.out_features, np.float32) if dense.bias is None else np.asarray(arrays[dense.bias])
    name = f"{dense.name}.weight"
    if bits >= 16:
        stored = emitter.constant(name, weight.astype(np.float32 if bits == 32 else np.float16))
    else:
        narrow = symmetric_only("FULLY_CONNECTED", bits, "dynamic" if is_dynamic else "float")
        scales = symmetric_scales(weight, axis=0, bits=bits, narrow=narrow) if learned is None else learned
        values = quantize_symmetric(weight, scales, axis=0, bits=bits, narrow=narrow)
        if bits == 4:
            stored = emitter.packed(name, weight.shape, pack_int4(values), scales)
        else:
            stored = emitter.constant(name, values, scale=scales)
    return Fully(weight=stored, bias=emitter.constant(f"{dense.name}.bias", bias.astype(np.float32)))


def signatures_of(path: Path, model: Recommender) -> tuple[Signature, ...]:
    """The file's signatures, with what only the source knows: bounds of ids, meaning of the output."""
    from runtimes.formats.tflite import read_signatures

    known = {info.name: info for info in model.inputs}
    return tuple(
        replace(
            signature,
            inputs=tuple(replace(info, id_bounds=known[info.name].id_bounds) for info in signature.inputs),
            outputs=tuple(replace(info, meaning=model.output.meaning) for info in signature.outputs),
        )
        for signature in read_signatures(path)
    )


def _lowered(
    request: LowerRequest,
    model: Recommender,
    path: Path,
    plan: tuple[Fused, ...],
    widths: dict[str, tuple[int, str]],
    digest: str,
) -> Lowered:
    from runtimes.formats.tflite import read_facts, read_graph

    packed = any(entry.storage.startswith(("int4", "float16")) for entry in plan)
    is_new = packed or any(bits != 32 for bits, _ in widths.values())
    return Lowered(
        files=(FileEntry(path=path.name, role="model", bytes=path.stat().st_size, sha256=digest),),
        signatures=signatures_of(path, model),
        graph=read_graph(path),
        outcomes=outcomes_of(model, request.spec, plan, widths, read_facts(path)),
        toolchain=versions("ai-edge-litert", "flatbuffers"),
        minimum_runtime="ai-edge-litert 1.4" if is_new else "tflite-runtime 2.14",
        warnings=(OLD_RUNTIME,) if is_new else (),
    )
