"""`edge-deploy search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table, progress_bar
from edge_deploy.cli.quantization_options import Io, Percentile, PlainPte, Ranges, TableScale, WithoutPass, WithPass
from edge_deploy.cli.source_options import Module, ModuleInputs, ModuleShapes, Weights

if TYPE_CHECKING:
    from converters.search.finding import SearchReport

__all__ = ["command"]

STAGES = 8
NOT_CONFIRMED = 8


def command(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Trained model, as for convert. For a PyTorch module: --source."),
    ] = None,
    source: Module = None,
    weights: Weights = None,
    input_: ModuleInputs = [],  # noqa: B006
    shape: ModuleShapes = [],  # noqa: B006
    to: Annotated[str, typer.Option(metavar="TARGET", help="tflite or executorch.")] = "tflite",
    max_drop: Annotated[
        float | None, typer.Option(metavar="DROP", help="Accuracy (or AUC) that may be lost, e.g. 0.01. Required.")
    ] = None,
    calibrate: Annotated[Path | None, typer.Option(metavar="DATA", help="As for convert.")] = None,
    calibrate_limit: Annotated[int | None, typer.Option(metavar="N", help="Use at most N calibration samples.")] = None,
    evaluate: Annotated[
        Path | None,
        typer.Option("--eval", metavar="DATA", help="Labelled samples to search on; half are kept back. Required."),
    ] = None,
    eval_limit: Annotated[int | None, typer.Option(metavar="N", help="Use at most N of them.")] = None,
    confirm: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Confirm on these labelled samples, and search on all of --eval."),
    ] = None,
    aim: Annotated[
        str, typer.Option("--for", metavar="size|speed", help="Smallest files, or fastest by a profile of this host.")
    ] = "size",
    widths: Annotated[
        str, typer.Option(metavar="BITS[,BITS]", help="Bits that layers may have; 16 and 32 compute in float.")
    ] = "4,8,16,32",
    io: Io = "float",
    table_scale: TableScale = "row",
    plain_pte: PlainPte = False,
    ranges: Ranges = "percentile",
    percentile: Percentile = 99.999,
    with_pass: WithPass = [],  # noqa: B006
    without_pass: WithoutPass = [],  # noqa: B006
    points: Annotated[
        int, typer.Option(metavar="N", help="Mixes over the whole range to convert, before the search closes in.")
    ] = 4,
    budget: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Begin no further conversion after so long.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Points and pages; a search that ended early goes on there.")
    ] = Path("build/search"),
    force: Annotated[bool, typer.Option("--force", help="Replace another search in --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search the smallest or fastest mix of precisions.

    Measures in one pass what each layer costs the answer at 4, 8 and more bits, converts points along the front of size
    and expected loss, evaluates them, and confirms the chosen one on samples that the search did not use.

    \b
    Example:
      edge-deploy search resnet8.h5 --to tflite --max-drop 0.01
        --calibrate train.npz --eval test.npz --budget 600
    """
    from edge_deploy.api.request import capture_request, quant_options
    from edge_deploy.api.search import search
    from edge_deploy.api.search_request import SearchRequest
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.quant_spec import spec_for_recipe
    from edge_deploy.zoo.description import find_description

    missing = [name for name, value in (("--max-drop", max_drop), ("--eval", evaluate)) if value is None]
    if to not in ("tflite", "executorch"):
        missing.append(f"--to {to}: must be tflite or executorch")
    if aim not in ("size", "speed"):
        missing.append(f"--for {aim}: must be size or speed")
    try:
        bits = tuple(int(text) for text in widths.split(","))
    except ValueError:
        missing.append(f"--widths {widths}: must be numbers, e.g. 4,8")
        bits = ()
    problems = [f"{text}." if " " in text else f"{text} is missing." for text in missing]
    options: dict[str, object] = {}
    try:
        options = quant_options(
            io=io,
            table_scale=table_scale,
            plain_pte=plain_pte,
            ranges=ranges,
            percentile=percentile,
            with_passes=with_pass,
            without_passes=without_pass,
        )
    except BadInput as error:
        problems += error.problems
    if problems or max_drop is None or evaluate is None:
        raise BadInput(*problems)
    request = SearchRequest(
        capture=capture_request(model, source, weights=weights, inputs=input_, shapes=shape),
        target=to,  # type: ignore[arg-type]  # just checked
        spec=spec_for_recipe("int8", **options),
        evaluate=find_description(evaluate),
        confirm=find_description(confirm) if confirm is not None else None,
        calibrate=find_description(calibrate) if calibrate is not None else None,
        calibrate_limit=calibrate_limit,
        evaluate_limit=eval_limit,
        out=out,
        max_drop=max_drop,
        aim=aim,  # type: ignore[arg-type]  # just checked
        widths=bits,
        points=points,
        budget_s=budget,
        force=force,
    )
    with progress_bar(STAGES) as progress:
        report = search(request, progress=progress)
    if as_json:
        print_json(report)
    else:
        _print(report, out)
    if report.verdict in ("not confirmed", "nothing found"):
        raise typer.Exit(NOT_CONFIRMED)


def _print(report: SearchReport, out: Path) -> None:
    from edge_deploy.core.units import format_seconds
    from edge_deploy.report.search_page import told_bits, told_difference

    is_timed = any(point.seconds is not None for point in report.points)
    rows = [
        (
            point.name + (" <- chosen" if point.name == report.chosen else ""),
            told_bits(point),
            human_bytes(point.device_bytes) if point.device_bytes else "",
            *((format_seconds(point.seconds) if point.seconds is not None else "",) if is_timed else ()),
            f"{point.cost:.3g}",
            f"{point.snr_db:.1f}" if point.difference is not None else "",
            told_difference(point.difference) if point.difference is not None else point.failure,
            "yes" if point.name in report.front else "",
        )
        for point in report.points
    ]
    columns = (
        *("point", "layers x bits", "size"),
        *(("time",) if is_timed else ()),
        *("cost", "SNR dB", report.metric, "front"),
    )
    print_table(
        f"{report.model} {report.target}, {report.search_samples} samples; cost: {report.cost_unit}", columns, rows
    )
    for note in report.notes:
        print(f"note: {note}")
    for name, value in (("answers' error", report.noise_rank), (f"drop of {report.metric}", report.drop_rank)):
        told = "cannot be told" if value is None else f"{value:+.2f}"
        print(f"rank correlation of expected noise with the measured {name} over {report.ranked} points: {told}")
    if report.confirmation is not None:
        print(
            f"{report.verdict}: {report.chosen}, on {report.confirm_samples} samples that the search did not use: "
            f"{told_difference(report.confirmation)}"
        )
        print(f"to convert it again:\n  {report.command}")
    else:
        print(f"no point loses at most {report.max_drop:g}.")
    print(f"page: {out / 'search.html'}")
