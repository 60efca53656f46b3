"""`edge-deploy exits`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table, progress_bar

__all__ = ["app"]

SHOWN = 12
app = typer.Typer(
    name="exits",
    help="Early exits: outputs that answer on the edge when they are confident.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)


@app.command("fit")
def fit(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder with manifest.json, quantized.")],
    calibrate: Annotated[str, typer.Option(metavar="DATA", help="Samples to fit on; best with labels.")],
    evaluate: Annotated[
        str | None, typer.Option("--eval", metavar="DATA", help="Other samples, to judge the thresholds on.")
    ] = None,
    exits: Annotated[
        list[str],
        typer.Option("--exit", metavar="NAME", help="An output. Repeatable. Default: all that look like the last."),
    ] = [],  # noqa: B006
    max_drop: Annotated[
        float, typer.Option(metavar="DROP", help="Most accuracy that may be lost on DATA; without labels: agreement.")
    ] = 0.01,
    q: Annotated[
        float | None, typer.Option("--budget", metavar="Q", help="Instead: shares of the exits as q, q^2, ... (RANet).")
    ] = None,
    share: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Instead: share of samples that end on the edge.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Take N samples at most.", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Leave the manifest as it is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit when a request may end at an early exit, and write it into the artifact.

    A model with exits has several outputs of one shape; the last one is the end. Fit after quantization: confidences
    move with the weights. `run` then answers on the edge whatever is confident there.

    \b
    Example:
      edge-deploy exits fit build/net/tflite-int8 --calibrate fit.npz
        --eval test.npz --max-drop 0.01
    """
    from edge_deploy.api.exits import fit_exits
    from edge_deploy.core.errors import BadInput

    if q is not None and share is not None:
        raise BadInput("--budget and --share: give one of them.")
    with progress_bar(2) as progress:
        found = fit_exits(
            artifact,
            calibrate,
            evaluate=evaluate,
            exits=exits,
            max_drop=max_drop,
            q=q,
            share=share,
            write=not dry_run,
            limit=limit,
            progress=progress,
        )
    if as_json:
        print_json(found)
        return
    step = max(1, len(found.curve) // SHOWN)
    rows = [
        (
            f"{point.q:.3g}",
            " ".join(f"{each:.0%}" for each in point.shares),
            "" if point.accuracy is None else f"{point.accuracy:.2%}",
            f"{point.agreement:.2%}",
            human_bytes(point.mean_bytes),
            f"{point.mean_macs / 1e6:.3g} M",
        )
        for point in found.curve[::step]
    ]
    columns = ("budget q", "end at", "accuracy", "agreement", "mean bytes up", "mean MACs")
    print_table(f"{artifact}: {found.samples} samples, cut {found.cut or 'none'}", columns, rows)
    for each in found.exits:
        print(
            f"{each.output} answers for {each.answer} at a confidence of {each.threshold:.4f}: {each.share:.1%} end by "
            f"there (plan: --exit {each.layer}={each.share:.3f})"
        )
    for where, point, whole in (
        ("fit", found.chosen, found.accuracy),
        ("held out", found.held_out, found.held_out_accuracy),
    ):
        if point is not None:
            shown = "" if point.accuracy is None else f"accuracy {point.accuracy:.2%} (the end alone {whole:.2%}), "
            print(f"{where}: {shown}agreement {point.agreement:.2%}, {1 - point.shares[-1]:.1%} end early")
    if not dry_run:
        print(f"written: {artifact / 'manifest.json'}")
