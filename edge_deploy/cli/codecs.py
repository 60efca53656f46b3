"""`edge-deploy codecs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table, progress_bar

__all__ = ["command"]


def command(
    halves: Annotated[Path, typer.Argument(metavar="DIR", help="What `edge-deploy split` wrote, or one cut of it.")],
    evaluate: Annotated[
        str, typer.Option("--eval", metavar="DATA", help="Samples: .npz, .npy, an image folder, a description.")
    ],
    codec: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="E.g. topk:5%-int8+zstd. Repeatable. Default: all that are listed."),
    ] = [],  # noqa: B006
    cut: Annotated[list[str], typer.Option(metavar="ID", help="Only this cut. Repeatable.")] = [],  # noqa: B006
    limit: Annotated[int | None, typer.Option(metavar="N", help="Take N samples at most.", min=1)] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what was measured, for --codec-measured.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what codecs send at each cut, and what they cost.

    Runs both halves on the same samples, with every codec between them and without.

    \b
    Example:
      edge-deploy codecs build/halves --eval test.npz --codec requantize:int8
        --codec requantize:int8+zstd --out codecs.json
    """
    from edge_deploy.api.codec_loss import CodecLoss, CodecLosses, codec_losses, cut_folders
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.serde import write_json
    from runtimes.codecs import codec_names

    folders = [folder for folder in cut_folders(halves) if not cut or folder.name in cut]
    missing = sorted(set(cut) - {folder.name for folder in folders})
    if missing:
        raise BadInput(f"--cut {', '.join(missing)}: not in {halves}; `edge-deploy split` writes it.")
    names = list(dict.fromkeys(codec)) or list(codec_names())
    losses: list[CodecLoss] = []
    with progress_bar(len(folders)) as progress:
        for folder in folders:
            progress(folder.name)
            losses += codec_losses(folder, names, evaluate, limit=limit)
    found = CodecLosses(losses=tuple(losses))
    if out is not None:
        write_json(found, out)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            loss.cut,
            loss.codec,
            human_bytes(loss.bytes_coded),
            f"{loss.bytes_coded / loss.bytes_raw:.0%}" if loss.bytes_raw else "",
            f"{loss.encode_s * 1e6:.0f}",
            f"{loss.decode_s * 1e6:.0f}",
            f"{loss.agreement:.1%}",
            ""
            if (paired := loss.difference) is None
            else f"{paired.difference:+.4f} ({paired.low:+.4f} to {paired.high:+.4f})",
        )
        for loss in losses
    ]
    columns = ("cut", "codec", "bytes", "of raw", "encode us", "decode us", "agreement", "difference (95 %)")
    print_table(f"{halves}: {losses[0].samples} samples", columns, rows)
    if out is not None:
        print(f"written: {out}")
