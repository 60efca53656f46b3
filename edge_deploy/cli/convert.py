"""`edge-deploy convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, progress_bar
from edge_deploy.cli.quantization_options import Io, Percentile, PlainPte, Ranges, TableScale, WithoutPass, WithPass
from edge_deploy.cli.source_options import Weights
from edge_deploy.cli.tables import print_artifacts

STAGES_BESIDE_PAIRS = 4


def command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Trained model: .keras, .h5, .onnx, .tflite, .pt2 or a SavedModel; a DLRM also as "
            ".safetensors, a folder of .npy or a .toml that describes it. For a PyTorch module: --source.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FACTORY",
            help="Function that returns a PyTorch module, e.g. my.nets:resnet. It is imported and called: name only "
            "code that you trust.",
        ),
    ] = None,
    weights: Weights = None,
    input_: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="NAME:SHAPE[:DTYPE]",
            help="An input of the --source module, batch first: image:1,3,32,32 or ids:1,26:int64. Repeat for each.",
        ),
    ] = [],  # noqa: B006
    shape: Annotated[
        list[str],
        typer.Option(
            metavar="NAME:SHAPE", help="Sizes for an input that has dynamic ones: image:1,224,224,3. Repeatable."
        ),
    ] = [],  # noqa: B006
    batch: Annotated[
        list[int], typer.Option(metavar="SIZE", help="Batch size that the artifact serves. Repeatable.")
    ] = [1],  # noqa: B006
    to: Annotated[
        list[str],
        typer.Option(
            metavar="TARGET", help="Format to write: tflite, executorch, or c (microcontrollers). Repeatable."
        ),
    ] = ["tflite"],  # noqa: B006
    precision: Annotated[
        list[str],
        typer.Option(
            metavar="PRECISION",
            help="float32, float16, int8, int4, int8-dynamic, int8-weight, int4-weight or int16x8 (microcontrollers); "
            "one artifact for each. Repeatable; int8 without this and --recipe.",
        ),
    ] = [],  # noqa: B006
    recipe: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="A .toml with a precision and rules for single layers, or a recipe of ai-edge-quantizer (.json); one "
            "artifact for each. Repeatable.",
        ),
    ] = [],  # noqa: B006
    fallback: Annotated[
        str | None,
        typer.Option(
            metavar="int8|float32",
            help="What a layer becomes that cannot be had as asked; it is recorded. Without: refused, by name.",
        ),
    ] = None,
    io: Io = "float",
    for_device: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="phone|mcu",
            help="Recommenders: tables and float or dynamic layers for phones, or integers only for microcontrollers.",
        ),
    ] = "phone",
    table_scale: TableScale = "row",
    plain_pte: PlainPte = False,
    delegate: Annotated[
        str,
        typer.Option(
            metavar="xnnpack|vulkan|cortex-m4",
            help="ExecuTorch: what runs the operators. Files for vulkan (float32, float16) and for Cortex-M cores "
            "(int8, cortex-m0 to cortex-m85) are written, not run here.",
        ),
    ] = "xnnpack",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="Some hundred samples that set the ranges of activations: .npz (arrays by input name, or x), .npy, "
            "a data set description .toml, or the name of one that `edge-deploy list` shows.",
        ),
    ] = None,
    calibrate_limit: Annotated[int | None, typer.Option(metavar="N", help="Use at most N calibration samples.")] = None,
    ranges: Ranges = "percentile",
    percentile: Percentile = 99.999,
    with_pass: WithPass = [],  # noqa: B006
    without_pass: WithoutPass = [],  # noqa: B006
    evaluate: Annotated[
        Path | None,
        typer.Option(
            "--eval",
            metavar="DATA",
            help="Other samples, to compare artifact and model on; with labels (y in an .npz) also by accuracy or AUC.",
        ),
    ] = None,
    eval_limit: Annotated[int | None, typer.Option(metavar="N", help="Use at most N evaluation samples.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="DROP", help="Refuse artifacts that lose more accuracy (or AUC) on --eval, e.g. 0.01."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Judge --max-drop by the lower end of the 95 % interval, not the point value."),
    ] = False,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of the classes for the manifest, one a line.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="features.json of a recommender: how raw features become ids; goes into the artifact."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write, whole or not at all.")] = Path(
        "build/model"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace --out, if edge-deploy wrote it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a trained model, verify and report the result.

    Writes one artifact for every --to and --precision, compared with the model, and report.html beside them.

    \b
    Example:
      edge-deploy convert resnet8.h5 --to tflite --to executorch
        --precision int8 --precision int4 --fallback int8
        --calibrate train.npz --eval test.npz --out build/resnet8
    """
    from edge_deploy.api.convert import convert
    from edge_deploy.api.request import convert_request, one_source

    request = convert_request(
        one_source(model, source),
        to=to,
        precision=precision if precision or recipe else ["int8"],
        recipe=recipe,
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
        plain_pte=plain_pte,
        for_device=for_device,
        ranges=ranges,
        percentile=percentile,
        with_passes=with_pass,
        without_passes=without_pass,
        features=features,
        labels=labels,
        max_drop=max_drop,
        strict=strict,
        calibrate_limit=calibrate_limit,
        evaluate_limit=eval_limit,
        force=force,
        delegate=delegate,
    )
    checks = int(calibrate is not None and any(spec.needs_ranges for spec in request.specs))
    with progress_bar(STAGES_BESIDE_PAIRS + checks + len(request.targets) + len(request.pairs)) as progress:
        conversion = convert(request, progress=progress)
    if as_json:
        print_json({"folder": conversion.folder, "report": conversion.report, "artifacts": list(conversion.artifacts)})
    else:
        print_artifacts(f"{conversion.artifacts[0].name} -> {conversion.folder}", conversion.artifacts)
        print(f"report: {conversion.report}")
