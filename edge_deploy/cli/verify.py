"""`edge-deploy verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table, progress_bar

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(help="An artifact: a folder with manifest.json.")],
    model: Annotated[str | None, typer.Option(help="The float model it came from (.keras, .h5, .pt2).")] = None,
    source: Annotated[str | None, typer.Option(help="Or its PyTorch factory package.module:factory (trusted).")] = None,
    weights: Annotated[Path | None, typer.Option(help="Checkpoint for --source (weights only).")] = None,
    input_: Annotated[list[str], typer.Option("--input", help="NAME:SHAPE[:DTYPE] for --source. May repeat.")] = [],  # noqa: B006
    evaluate: Annotated[Path | None, typer.Option("--eval", help="Samples to compare on, with labels in y.")] = None,
    eval_limit: Annotated[int | None, typer.Option(help="Use at most so many of them.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Fail when accuracy (or AUC) falls by more.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Judge --max-drop by the interval's lower end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check an artifact: digests, what each layer became, outputs at 1 and 2 threads, and its source if named."""
    from converters.contracts import CaptureRequest
    from edge_deploy.api.request import one_source, parse_input
    from edge_deploy.api.verify import verify

    request = None
    if model is not None or source is not None:
        inputs = tuple(parse_input(text) for text in input_)
        request = CaptureRequest(source=one_source(model, source), weights=weights, inputs=inputs)
    with progress_bar(3) as progress:
        artifact, result = verify(
            folder,
            request=request,
            evaluate=evaluate,
            evaluate_limit=eval_limit,
            max_drop=max_drop,
            strict=strict,
            progress=progress,
        )
    if as_json:
        print_json({"folder": folder, "verification": result})
        return
    rows = [
        (
            each.kernels,
            str(each.threads),
            str(each.samples),
            "identical" if each.snr_db >= 999 else f"{each.snr_db:.1f}",
            f"{each.cosine:.6f}",
            f"{each.max_error:.4g}",
            "" if each.top1_agreement is None else f"{each.top1_agreement:.1%}",
        )
        for each in result.comparisons
    ]
    columns = ("kernels", "threads", "samples", "SNR dB", "cosine", "max error", "top-1 agreement")
    print_table(f"{folder}: files whole, {len(artifact.outcomes)} layers as claimed", columns, rows)
    for found in result.differences:
        print(
            f"{found.metric}: source {found.source:.4f}, artifact {found.artifact:.4f}, difference "
            f"{found.difference:+.4f} (95 % {found.low:+.4f} to {found.high:+.4f}, {found.samples} samples)"
        )
    for note in result.notes:
        print(f"note: {note}")
    print(f"verdict: {result.verdict}")
