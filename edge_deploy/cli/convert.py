"""`edge-deploy convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, progress_bar
from edge_deploy.cli.tables import print_artifacts

STAGES_BESIDE_PAIRS = 4
STAGES_A_PAIR = 2


def command(
    model: Annotated[
        str | None, typer.Argument(help="Trained model: .keras, .h5 or .pt2 (or use --source for a PyTorch module).")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="PyTorch factory package.module:factory. It is imported and called: only name code you trust."
        ),
    ] = None,
    to: Annotated[list[str], typer.Option(help="Target: tflite or executorch. May repeat.")] = ["tflite"],  # noqa: B006
    precision: Annotated[list[str], typer.Option(help="float32, int8 or int4. May repeat.")] = ["int8"],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Folder to write; appears in one rename.")] = Path("build/model"),
    calibrate: Annotated[
        Path | None, typer.Option(help="Calibration samples: .npz (by input name, or x), .npy, or a data set .toml.")
    ] = None,
    evaluate: Annotated[
        Path | None, typer.Option("--eval", help="Evaluation samples, with labels in y; never the calibration ones.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint for --source (weights only).")] = None,
    input_: Annotated[
        list[str], typer.Option("--input", help="NAME:SHAPE[:DTYPE], e.g. image:1,3,32,32. May repeat.")
    ] = [],  # noqa: B006
    shape: Annotated[list[str], typer.Option(help="NAME:SHAPE for an input with dynamic dimensions. May repeat.")] = [],  # noqa: B006
    batch: Annotated[list[int], typer.Option(help="Batch size the artifact serves. May repeat.")] = [1],  # noqa: B006
    fallback: Annotated[
        str | None, typer.Option(help="int8 or float32: what a layer may get that cannot have what was asked.")
    ] = None,
    io: Annotated[str, typer.Option(help="Type of inputs and outputs: float or int8.")] = "float",
    table_scale: Annotated[str, typer.Option(help="INT4 tables: one scale per row, or per table.")] = "row",
    for_device: Annotated[
        str, typer.Option("--for", help="Recommenders: phone (hybrid) or mcu (full integer).")
    ] = "phone",
    ranges: Annotated[str, typer.Option(help="Activation ranges: min-max or percentile.")] = "min-max",
    percentile: Annotated[float, typer.Option(help="Share of values kept with --ranges percentile, in %.")] = 99.99,
    features: Annotated[Path | None, typer.Option(help="features.json of a recommender, to travel along.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Class names, one a line.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Refuse when accuracy (or AUC) falls by more, e.g. 0.01; needs --eval.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Judge --max-drop by the interval's lower end.")] = False,
    calibrate_limit: Annotated[int | None, typer.Option(help="Use at most so many calibration samples.")] = None,
    eval_limit: Annotated[int | None, typer.Option(help="Use at most so many evaluation samples.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out if edge-deploy wrote it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a trained model to every --to x --precision, prove each artifact, write them with one report.

    Example: edge-deploy convert resnet8.h5 --to tflite --to executorch --precision int8 --precision int4
    --fallback int8 --calibrate train.npz --eval test.npz --out build/resnet8
    """
    from edge_deploy.api.convert import convert
    from edge_deploy.api.request import one_source, plan

    request = plan(
        one_source(model, source),
        to=to,
        precision=precision,
        out=out,
        calibrate=calibrate,
        evaluate=evaluate,
        weights=weights,
        inputs=input_,
        shapes=shape,
        batches=batch,
        fallback=fallback,
        io=io,
        table_scale=table_scale,
        for_device=for_device,
        ranges=ranges,
        percentile=percentile,
        features=features,
        labels=labels,
        max_drop=max_drop,
        strict=strict,
        calibrate_limit=calibrate_limit,
        evaluate_limit=eval_limit,
        force=force,
    )
    with progress_bar(STAGES_BESIDE_PAIRS + STAGES_A_PAIR * len(request.pairs)) as progress:
        conversion = convert(request, progress=progress)
    if as_json:
        print_json({"folder": conversion.folder, "report": conversion.report, "artifacts": list(conversion.artifacts)})
    else:
        print_artifacts(f"{conversion.artifacts[0].name} -> {conversion.folder}", conversion.artifacts)
        print(f"report: {conversion.report}")
