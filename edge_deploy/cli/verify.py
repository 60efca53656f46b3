"""`edge-deploy verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table, progress_bar
from edge_deploy.cli.source_options import OriginInputs, OriginModule, OriginShapes, Weights

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder with manifest.json.")],
    model: Annotated[
        str | None, typer.Option(metavar="FILE", help="The float model that it came from: .keras, .h5 or .pt2.")
    ] = None,
    source: OriginModule = None,
    weights: Weights = None,
    input_: OriginInputs = [],  # noqa: B006
    shape: OriginShapes = [],  # noqa: B006
    evaluate: Annotated[
        Path | None,
        typer.Option(
            "--eval", metavar="DATA", help="Samples to compare on, as for convert; default: random ones that fit."
        ),
    ] = None,
    eval_limit: Annotated[int | None, typer.Option(metavar="N", help="Use at most N of them.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="DROP", help="Fail when accuracy (or AUC) is lower than the model's by more, e.g. 0.01."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Judge --max-drop by the lower end of the 95 % interval, not the point value."),
    ] = False,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ed25519 public key (PEM) that must have signed the manifest."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Where to run it: as for benchmark, e.g. qemu:arm64-cortex-a76 or ssh:pi@host."
        ),
    ] = "host",
    as_json: AsJson = False,
) -> None:
    """Check that an artifact is whole and still right.

    Digests of its files, what each layer is in the bytes, outputs at 1 and 2 threads; with --model or --source also
    against the float model. With --device it runs there.
    """
    from edge_deploy.api.request import capture_request
    from edge_deploy.api.verify import verify

    request = None
    if model is not None or source is not None:
        request = capture_request(model, source, weights=weights, inputs=input_, shapes=shape)
    with progress_bar(3 if device == "host" else 4) as progress:
        artifact, result = verify(
            folder,
            request=request,
            evaluate=evaluate,
            evaluate_limit=eval_limit,
            max_drop=max_drop,
            strict=strict,
            device=device,
            public_key=public_key,
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
