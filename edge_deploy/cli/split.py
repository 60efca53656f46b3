"""`edge-deploy split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table, progress_bar

__all__ = ["command"]

STAGES = 2
MANY_REFUSED = 8


def command(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A folder with manifest.json, or any .tflite file.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; appears in one rename.")],
    cut: Annotated[
        list[str],
        typer.Option(
            metavar="ID", help="A cut, as `edge-deploy cuts` names it; all-edge and all-cloud too. Repeatable."
        ),
    ] = [],  # noqa: B006
    edge_layers: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="A cut by the names of its edge layers, separated by commas."),
    ] = None,
    all_cuts: Annotated[bool, typer.Option("--all", help="Every legal prefix of the layers.")] = False,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Run head, then tail, against the whole and compare every bit."),
    ] = True,
    evaluate: Annotated[
        Path | None,
        typer.Option("--eval", metavar="DATA", help="Samples to compare on, besides random ones; as for convert."),
    ] = None,
    eval_limit: Annotated[int, typer.Option(metavar="N", help="Use at most N of them.")] = 64,
    force: Annotated[bool, typer.Option("--force", help="Replace DIR if it holds only what we wrote.")] = False,
    as_json: AsJson = False,
) -> None:
    """Split an artifact into halves for edge and cloud.

    Writes DIR/ID/head and DIR/ID/tail for every cut: artifacts of their own, compared with the whole.

    \b
    Example:
      edge-deploy split build/resnet8/tflite-int8 --cut 004-1b2c3d
        --out build/halves
    """
    from edge_deploy.api.split import split

    with progress_bar(STAGES) as progress:
        result = split(
            artifact,
            cuts=cut,
            edge_layers=None if edge_layers is None else [name for name in edge_layers.split(",") if name],
            all_cuts=all_cuts,
            out=out,
            check=check,
            evaluate=evaluate,
            evaluate_limit=eval_limit,
            force=force,
            progress=progress,
        )
    if as_json:
        print_json(result)
        return
    rows = [
        (
            each.cut.id,
            str(len(each.cut.edge_layers)),
            ", ".join(info.name for info in each.cut.up[:2]) + (" ..." if len(each.cut.up) > 2 else ""),
            human_bytes(each.up_bytes) if each.up_bytes is not None else "dynamic",
            _verdict(each.bit_identical, max((found.max_error for found in each.comparisons), default=0.0)),
            each.note,
        )
        for each in result.cuts
    ]
    print_table(f"{artifact} -> {out}", ("cut", "edge layers", "crosses", "up", "against the whole", ""), rows)
    for refused in result.refused[:MANY_REFUSED]:
        print(f"left out: {refused.cut}: {'; '.join(refused.reasons)}")
    if len(result.refused) > MANY_REFUSED:
        print(f"left out: {len(result.refused) - MANY_REFUSED} more; --json tells all")


def _verdict(identical: bool | None, worst: float) -> str:
    if identical is None:
        return "not compared"
    return "bit-identical" if identical else f"differs by up to {worst:.3g}"
