"""Which layer of an artifact loses the accuracy, what would help, and the proof that it does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.debugger.diagnose import Opened, diagnose
from converters.debugger.finding import DebugReport, Diagnosis, Fix, Likeness, Proof
from converters.samples import save_arrays
from edge_deploy.api.convert import convert
from edge_deploy.api.debug_case import Case, measured_answers, open_case
from edge_deploy.api.debug_fix import WIDTHS, choose_change, convert_command, recipe_text, with_layers
from edge_deploy.api.debug_request import DebugRequest
from edge_deploy.api.request import ConvertRequest
from edge_deploy.core.errors import BadInput
from edge_deploy.core.publish import published_folder
from edge_deploy.core.quant_spec import QuantSpec, spec_for_recipe
from edge_deploy.core.serde import write_json

__all__ = ["debug"]

RECIPE, PAGE, JSON = "fix.toml", "debug.html", "debug.json"
FAR_DB = 3.0  # between estimated and measured answers
Progress = Callable[[str], None]


def debug(request: DebugRequest, *, progress: Progress = lambda stage: None) -> DebugReport:
    """Rank an artifact's layers by what their errors do to the answer, and say what would help.

    Writes `debug.html`, `debug.json`, where layers should change `fix.toml`, and a folder for each proof into
    `request.out`, all in one rename.

    Args:
        progress: Called with the name of each stage as it begins.

    Raises:
        BadInput: Not an artifact, data or source that does not fit it, or a layer that it does not have.
        Unsupported: An artifact whose layers cannot be looked at.
        ToolchainError: A runtime or converter failed.
    """
    if request.out is not None and request.out.exists() and not (request.force and (request.out / JSON).is_file()):
        raise BadInput(f"{request.out}: exists already; choose another --out, or --force to replace what debug wrote.")
    place = published_folder(request.out, force=request.force) if request.out is not None else nullcontext(None)
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch, place as partial:
        progress(f"capture {request.source.source}")
        case = open_case(request, Path(scratch))
        progress("compare layers")
        diagnosis = _diagnosed(case)
        fix = _fix(case, diagnosis)
        proofs = _proofs(case, diagnosis, fix, partial, progress)
        report = DebugReport(diagnosis=diagnosis, fix=fix, proofs=proofs)
        if partial is not None:
            _write(report, partial)
    return report


def _diagnosed(case: Case) -> Diagnosis:
    artifact = case.artifact
    opened = Opened(
        name=artifact.name,
        target=artifact.format,
        folder=case.request.folder.resolve(),
        spec=artifact.spec,
        outcomes=artifact.outcomes,
    )
    int8, notes = None, list(case.notes)
    narrow = any(0 < outcome.weight_bits < 7 for outcome in artifact.outcomes)
    if narrow and case.captured.recommender is None:
        if case.needs_calibration:
            notes.append("name the calibration samples with --calibrate to learn what layers at INT8 would change")
        else:
            int8 = case.lowered(_at_int8(artifact.spec), "int8")
    measured = measured_answers(case.request.folder, feeds=case.feeds, answers=case.answers, work=case.work)
    found = diagnose(case.captured, opened, case.feeds, case.labels, measured, int8=int8)
    gap = found.estimated.snr_db - found.measured.snr_db
    if abs(gap) > FAR_DB:
        notes.append(
            f"estimates are {abs(gap):.1f} dB too {'good' if gap > 0 else 'bad'}: the artifact does otherwise than "
            "its layers by themselves tell; trust what is proven"
        )
    return replace(found, notes=(*found.notes, *notes))


def _at_int8(spec: QuantSpec) -> QuantSpec:
    usual = spec_for_recipe("int8")
    return replace(spec, recipe=usual.recipe, weight_bits=usual.weight_bits, mlp_bits=usual.mlp_bits, rules=())


def _fix(case: Case, diagnosis: Diagnosis) -> Fix | None:
    request, spec = case.request, case.artifact.spec
    where = (request.out or Path()) / RECIPE
    fixed = (request.out or Path("build/debug")).parent / "fixed"
    if diagnosis.cause.kind == "ranges" and case.artifact.calibration_digest:
        command = convert_command(
            request.source,
            spec,
            case.artifact.format,
            recipe=where if spec.rules else None,
            calibrate=request.data,
            evaluate=None,
            out=fixed,
        )
        text = f"calibrate with samples like those of {request.data.name}"
        return Fix(text=text, recipe=recipe_text(spec, text) if spec.rules else "", command=command)
    change = choose_change(diagnosis)
    if change is None:
        return None
    layer, what_if = change
    text = f"{layer.layer} at {what_if.precision}"
    changed = with_layers(spec, [(layer.layer, WIDTHS[what_if.precision])])
    command = convert_command(
        request.source,
        spec,
        case.artifact.format,
        recipe=where,
        calibrate=request.calibrate,
        calibrate_limit=request.calibrate_limit,
        evaluate=request.data if request.data != request.calibrate else None,
        out=fixed,
    )
    return Fix(
        text=text,
        recipe=recipe_text(changed, f"{case.artifact.name} {spec.recipe}, with {text}"),
        command=command,
        layers=((layer.layer, what_if.precision),),
    )


def _proofs(
    case: Case, diagnosis: Diagnosis, fix: Fix | None, partial: Path | None, progress: Progress
) -> tuple[Proof, ...]:
    request, spec = case.request, case.artifact.spec
    wanted: list[tuple[str, QuantSpec, Likeness | None]] = []
    if request.prove:
        best = {
            layer.layer: max(layer.what_if, key=lambda w: w.likeness.snr_db)
            for layer in diagnosis.layers
            if layer.what_if
        }
        changes = [(name, WIDTHS[best[name].precision]) for name in request.prove]
        estimated = best[request.prove[0]].likeness if len(request.prove) == 1 else None
        text = ", ".join(f"{name} at {best[name].precision}" for name in request.prove)
        wanted.append((text, with_layers(spec, changes), estimated))
    if request.prove_best and fix is not None and fix.layers:
        name, precision = fix.layers[0]
        what_if = next(
            w for layer in diagnosis.layers if layer.layer == name for w in layer.what_if if w.precision == precision
        )
        wanted.append((fix.text, with_layers(spec, [(name, WIDTHS[precision])]), what_if.likeness))
    proofs = []
    if request.prove_best and fix is not None and diagnosis.cause.kind == "ranges" and not fix.layers:
        progress(f"prove {fix.text}")
        proofs.append(_proof_of_ranges(case, fix.text, partial))
    if not wanted:
        return tuple(proofs)
    if case.needs_calibration:
        raise BadInput("--prove: converts again, which needs the calibration samples; pass --calibrate.")
    for number, (text, changed, estimated) in enumerate(wanted):
        progress(f"prove {text}")
        proofs.append(_proof(case, diagnosis, text, changed, estimated, partial, number))
    return tuple(proofs)


def _proof(
    case: Case,
    diagnosis: Diagnosis,
    text: str,
    spec: QuantSpec,
    estimated: Likeness | None,
    partial: Path | None,
    number: int,
) -> Proof:
    request = case.request
    folder = (partial or case.work) / f"proof-{number + 1}"
    made = convert(
        ConvertRequest(
            capture=replace(request.source, batches=case.captured.batches),
            targets=(case.artifact.format,),
            specs=(spec,),
            out=folder,
            calibrate=request.calibrate,
            calibrate_limit=request.calibrate_limit,
        )
    )
    new = next(path.parent for path in folder.glob("*/manifest.json"))
    return Proof(
        change=text,
        estimated=estimated,
        before=diagnosis.measured,
        after=case.measured(new),
        device_bytes=made.artifacts[0].device_bytes,
        bytes_before=case.artifact.device_bytes,
        samples=diagnosis.samples,
        folder="" if partial is None else str(new.relative_to(partial)),
    )


def _proof_of_ranges(case: Case, text: str, partial: Path | None) -> Proof:
    """Calibrate with the first half of the samples and compare on the second."""
    with np.load(case.feeds, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    half = len(case.labels) // 2
    calibration = case.work / "first_half.npz"
    save_arrays({name: array[:half] for name, array in arrays.items()}, calibration)
    second = case.part(slice(half, None), "second_half")
    folder = (partial or case.work) / "proof-ranges"
    made = convert(
        ConvertRequest(
            capture=replace(case.request.source, batches=case.captured.batches),
            targets=(case.artifact.format,),
            specs=(case.artifact.spec,),
            out=folder,
            calibrate=calibration,
        )
    )
    new = next(path.parent for path in folder.glob("*/manifest.json"))
    return Proof(
        change=f"{text} (the first {half} of them; compared on the others)",
        estimated=None,
        before=second.measured(case.request.folder),
        after=second.measured(new),
        device_bytes=made.artifacts[0].device_bytes,
        bytes_before=case.artifact.device_bytes,
        samples=len(second.labels),
        folder="" if partial is None else str(new.relative_to(partial)),
    )


def _write(report: DebugReport, partial: Path) -> None:
    from edge_deploy.report.debug_page import debug_page
    from edge_deploy.report.document import write_page

    write_json(report, partial / JSON)
    if report.fix is not None and report.fix.recipe:
        (partial / RECIPE).write_text(report.fix.recipe, encoding="utf-8")
    write_page(debug_page(report.diagnosis, fix=report.fix, proofs=report.proofs), partial / PAGE)
