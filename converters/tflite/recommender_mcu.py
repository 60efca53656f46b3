"""Lower a recommender to a full-integer file for microcontrollers, calibrated on the NumPy reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.contracts import Lowered, LowerRequest
from converters.quantize.clipping import chosen_range
from converters.quantize.ranges import HistogramObserver, MinMaxObserver, Range
from converters.quantize.uniform import Affine
from converters.recommender.model import Lookup, Recommender
from converters.recommender.reference import trace_reference
from converters.tflite.calibrate import load_samples
from converters.tflite.emit import Emitter
from converters.tflite.recommender_check import check_tables
from converters.tflite.recommender_hybrid import signature_key
from converters.tflite.recommender_integer import StoredTable, add_integer_graph
from converters.tflite.recommender_outcomes import mcu_outcomes
from converters.tflite.recommender_store import TABLES_METADATA, note_table, store_own_table
from converters.tflite.recommender_tables import absolute_maxima
from edge_deploy.core.artifact import FileEntry
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.tensor import Meaning
from edge_deploy.core.toolchain import versions

__all__ = ["calibrate_reference", "lower_mcu"]

MODEL = "model.tflite"
CALIBRATION_BATCH = 256
LOGIT = (
    "the output is the logit: apply 1 / (1 + exp(-x)) in the application; an INT8 probability would resolve only 1/256"
)


def lower_mcu(request: LowerRequest, model: Recommender, arrays: Mapping[str, np.ndarray]) -> Lowered:
    """Write `model.tflite` with every constant inline.

    Raises:
        Unsupported: INT4 tables or layers without a fallback, or bags that have no integer form; each by name.
        BadInput: Calibration data is missing, or a table holds NaN.
    """
    from converters.tflite.recommender import check_weights, signatures_of
    from runtimes.formats.tflite import read_facts, read_graph

    spec = request.spec
    _refuse(model, spec, packs_tables=request.packs_tables)
    check_weights(model, arrays)
    maxima = absolute_maxima(model, arrays)
    stored_arrays = _without_padding_rows(model, arrays)
    ranges = None
    if not spec.is_float:
        if request.calibration is None:
            raise BadInput(
                f"{request.captured.name}: a full-integer recommender needs calibration data; pass --calibrate with "
                "samples like those the model will see, or convert with --for phone."
            )
        ranges = calibrate_reference(model, arrays, request.calibration, spec)
    emitter = Emitter("recommender")
    tables = []
    notes = []
    for number, table in enumerate(model.tables):
        is_narrow = request.packs_tables and spec.bits_for(table.name) == 4
        scale = None if spec.is_float else Affine(scale=_scale(maxima[number], 7 if is_narrow else 127), zero_point=0)
        constant = store_own_table(emitter, table.name, stored_arrays[table.weight], scale)
        notes.append(note_table(table, constant.name, "float32" if spec.is_float else "int8-table"))
        tables.append(StoredTable(table=constant, scale=scale))
    emitter.metadata(TABLES_METADATA, json.dumps(notes))
    batches = request.captured.batches
    shown = replace(model, output=replace(model.output, meaning=_meaning(model)))
    for batch in batches:
        add_integer_graph(
            emitter,
            shown,
            arrays,
            tuple(tables),
            ranges,
            batch=batch,
            key=signature_key(batch, batches),
            integer_io=spec.io == "int8",
        )
    path: Path = request.folder / MODEL
    emitter.write(path)
    check_tables(path, model, stored_arrays)
    return Lowered(
        files=(FileEntry(path=path.name, role="model", bytes=path.stat().st_size, sha256=file_sha256(path)),),
        signatures=signatures_of(path, shown),
        graph=read_graph(path),
        outcomes=mcu_outcomes(model, spec, read_facts(path), packs_tables=request.packs_tables),
        toolchain=versions("ai-edge-litert", "flatbuffers"),
        minimum_runtime="TensorFlow Lite Micro, tflite-runtime 2.14",
        warnings=(LOGIT,) if model.output_activation == "sigmoid" else (),
    )


def _meaning(model: Recommender) -> Meaning | None:
    return "logit" if model.output_activation == "sigmoid" else model.output.meaning


def _scale(maximum: float, most: int) -> float:
    return float(np.float32(max(maximum / most, 2.0**-40)))


def _refuse(model: Recommender, spec: QuantSpec, *, packs_tables: bool) -> None:
    refusals = []
    if spec.activations not in ("int8", "float") or spec.weight_bits == 16 or (spec.recipe.endswith("-weight")):
        reason = "a recommender for microcontrollers has INT8 activations: TFLite Micro looks no INT16 rows up"
        names = [table.name for table in model.tables]
        refusals += [
            Refusal(layer=name, op="GATHER", reason=reason, remedy="take int8, or --for phone") for name in names
        ]
    for layers, op, default in (
        ([table.name for table in model.tables], "GATHER", spec.weight_bits),
        ([dense.name for dense in (*model.bottom, *model.top)], "FULLY_CONNECTED", spec.mlp_bits),
    ):
        for name in layers:
            bits = spec.bits_for(name, default=default)
            if bits == 4 and spec.fallback_bits != 8 and not (packs_tables and op == "GATHER"):
                what = "tables" if op == "GATHER" else "per-channel layers"
                reason = f"TFLite Micro does not run INT4 {what}"
                refusals.append(Refusal(layer=name, op=op, reason=reason, remedy="allow --fallback int8"))
            if (bits == 32) != spec.is_float:
                reason = "a full-integer recommender cannot be float in part"
                refusals.append(Refusal(layer=name, op=op, reason=reason, remedy="leave the rule out, or --for phone"))
    for entry in model.tables:
        if entry.robe is not None or entry.hot is not None:
            reason = "its hot rows are found with integer operators, which TFLite Micro does not have"
            if entry.robe is not None:
                reason = "its places are computed with 64-bit integers, which TFLite Micro does not have"
            refusals.append(Refusal(layer=entry.name, op="GATHER", reason=reason, remedy="use --for phone"))
    for number, lookup in enumerate(model.lookups):
        problem = _pooling_problem(model, number, lookup)
        if problem:
            table = model.tables[lookup.table].name
            refusals.append(Refusal(layer=table, op="embedding bag", reason=problem, remedy="use --for phone"))
    if refusals:
        raise Unsupported(refusals=tuple(refusals))


def _pooling_problem(model: Recommender, number: int, lookup: Lookup) -> str:
    if lookup.weights_input is not None:
        return "per-sample weights have no integer form here"
    if lookup.padding_index is None:
        return ""
    if lookup.pooling == "mean":
        return "a mean over ids that are not padding divides by a count that only the sample knows"
    others = [x for i, x in enumerate(model.lookups) if i != number and x.table == lookup.table]
    if any(other.padding_index != lookup.padding_index for other in others):
        return "its table is shared with a look-up that reads the padding row"
    return ""


def _without_padding_rows(model: Recommender, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tables whose padding row is zero, which leaves padded ids out of a sum; others as they are."""
    result = dict(arrays)
    for lookup in model.lookups:
        table = model.tables[lookup.table]
        if lookup.padding_index is not None and 0 <= lookup.padding_index < table.rows:
            cleared = np.array(arrays[table.weight], np.float32)
            cleared[lookup.padding_index] = 0
            result[table.weight] = cleared
    return result


def calibrate_reference(
    model: Recommender, arrays: Mapping[str, np.ndarray], calibration: Path, spec: QuantSpec
) -> dict[str, Range]:
    """Ranges of every value that `trace_reference` names and of every dense input, over an npz of samples.

    Raises:
        BadInput: Samples do not fit the inputs, or a value becomes NaN.
    """
    samples = load_samples(calibration)
    missing = [info.name for info in model.inputs if info.name not in samples]
    if missing:
        raise BadInput(f"{calibration}: holds {', '.join(samples)}; the model also needs {', '.join(missing)}.")
    extremes: dict[str, MinMaxObserver] = {}
    for values in _traces(model, arrays, samples):
        for name, array in values.items():
            extremes.setdefault(name, MinMaxObserver(name=name)).see(array)
    ranges = {name: observer.range() for name, observer in extremes.items()}
    if spec.range_method == "min-max":
        return ranges
    counts = {name: HistogramObserver(extremes=found) for name, found in ranges.items()}
    for values in _traces(model, arrays, samples):
        for name, array in values.items():
            counts[name].see(array)
    return {name: chosen_range(observer, spec) for name, observer in counts.items()}


def _traces(
    model: Recommender, arrays: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    count = len(next(iter(samples.values())))
    last = {lookup.input for lookup in model.lookups if lookup.columns_first}
    for start in range(0, count, CALIBRATION_BATCH):
        feeds = {info.name: samples[info.name][start : start + CALIBRATION_BATCH] for info in model.inputs}
        batch = len(next(iter(feeds.values())))
        floats = {
            info.name: np.asarray(feeds[info.name], np.float32)
            for info in model.inputs
            if info.dtype.startswith("float")
        }
        feeds = {name: np.moveaxis(array, 0, -1) if name in last else array for name, array in feeds.items()}
        yield {**trace_reference(model, arrays, feeds, batch=batch), **floats}
