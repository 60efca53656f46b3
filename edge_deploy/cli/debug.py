"""`edge-deploy debug`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table, progress_bar
from edge_deploy.cli.source_options import OriginInputs, OriginModule, OriginShapes, Weights

if TYPE_CHECKING:
    from converters.debugger.finding import DebugReport, LayerDiagnosis

__all__ = ["command"]

STAGES = 3
EXACT_DB = 150.0


def command(
    folder: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder with manifest.json.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Real samples, as for convert --eval; with labels better. Required."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="FILE", help="The float model that the artifact came from.")
    ] = None,
    source: OriginModule = None,
    weights: Weights = None,
    input_: OriginInputs = [],  # noqa: B006
    shape: OriginShapes = [],  # noqa: B006
    limit: Annotated[int, typer.Option(metavar="N", help="Look at N samples at most.")] = 64,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="The calibration samples of the artifact: to convert anything again."),
    ] = None,
    calibrate_limit: Annotated[int | None, typer.Option(metavar="N", help="Use at most N of them.")] = None,
    prove: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER[,LAYER]",
            help='Convert again with these layers at the precision that is expected to help, and measure; "best" takes '
            "what is expected to help most.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", help="Show the N layers with the largest errors.")] = 12,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Page, JSON, recipe and proven artifacts.")] = Path(
        "build/debug"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace --out, if debug wrote it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the layers that cost an artifact its accuracy.

    Compares every layer with the float model on real samples: by itself and with all errors before it. Says what an
    answer would be with one layer at another precision, and prints the command that mends it.

    \b
    Example:
      edge-deploy debug build/resnet8/tflite-int4 --model resnet8.h5
        --data test.npz --calibrate train.npz --prove best
    """
    from edge_deploy.api.debug import debug
    from edge_deploy.api.debug_request import DebugRequest
    from edge_deploy.api.request import capture_request
    from edge_deploy.core.errors import BadInput
    from edge_deploy.zoo.description import find_description

    if data is None:
        raise BadInput("--data: name real samples to compare the layers on.")
    best = prove == "best"
    request = DebugRequest(
        folder=folder,
        source=capture_request(model, source, weights=weights, inputs=input_, shapes=shape),
        data=find_description(data),
        calibrate=find_description(calibrate) if calibrate is not None else None,
        calibrate_limit=calibrate_limit,
        limit=limit,
        prove=tuple(prove.split(",")) if prove and not best else (),
        prove_best=best,
        out=out,
        force=force,
    )
    with progress_bar(STAGES + bool(prove)) as progress:
        report = debug(request, progress=progress)
    if as_json:
        print_json({"folder": out, **_as_dict(report)})
    else:
        _print(report, out, top)


def _as_dict(report: DebugReport) -> dict[str, object]:
    return {"diagnosis": report.diagnosis, "fix": report.fix, "proofs": report.proofs}


def _print(report: DebugReport, out: Path, top: int) -> None:
    from edge_deploy.report.debug_page import told_likeness

    found = report.diagnosis
    ranked = sorted(found.layers, key=lambda layer: -layer.noise_share)[:top]
    columns = ("layer", "became", "part", "own dB", "dB", "float values", "stored", "clipped", "at INT8", "in float")
    print_table(
        f"{found.artifact} {found.format} {found.recipe}: layers by their part of the error, {found.samples} samples",
        columns,
        [_row(layer) for layer in ranked],
    )
    if found.float_score is not None:
        print(f"float {found.metric}: {found.float_score:.4f}")
    print(f"artifact: {told_likeness(found.measured, found.metric)}")
    print(f"estimated from its layers: {told_likeness(found.estimated, found.metric)}")
    print(f"cause: {found.cause.text}")
    for note in found.notes:
        print(f"note: {note}")
    for proof in report.proofs:
        estimate = "" if proof.estimated is None else f" (estimated {told_likeness(proof.estimated, found.metric)})"
        print(
            f"proven: {proof.change}: {told_likeness(proof.before, found.metric)} -> "
            f"{told_likeness(proof.after, found.metric)}{estimate}, {human_bytes(proof.bytes_before)} -> "
            f"{human_bytes(proof.device_bytes)}"
        )
    if found.cause.kind == "spread":
        print("many layers share the error: edge-deploy search weighs all of them at once.")
    if report.fix is None:
        print("no change of a single layer is expected to help.")
    else:
        print(f"what helps most: {report.fix.text}\n  {report.fix.command}")
    print(f"page: {out / 'debug.html'}")


def _row(layer: LayerDiagnosis) -> tuple[str, ...]:
    told = {each.precision: f"{each.likeness.snr_db:.1f}" for each in layer.what_if}
    stored = "" if layer.stored_low is None else f"{layer.stored_low:.3g}..{layer.stored_high:.3g}"
    return (
        layer.layer if layer.kind == "layer" else f"(input) {layer.layer}",
        layer.got or layer.dtype,
        f"{layer.noise_share:.1%}",
        _decibels(layer.own_snr_db),
        _decibels(layer.snr_db),
        f"{layer.low:.3g}..{layer.high:.3g}",
        stored,
        f"{layer.clipped:.2%}" if layer.clipped else "",
        told.get("int8", ""),
        told.get("float32", ""),
    )


def _decibels(value: float | None) -> str:
    return "" if value is None else "exact" if value >= EXACT_DB else f"{value:.1f}"
