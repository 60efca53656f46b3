"""`edge-deploy report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `convert` wrote, or any folder of artifacts.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Page to write; default: report.html in FOLDER.")
    ] = None,
    model_explorer: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write what is known of each layer (SNR, bits, seconds) as overlays that Model Explorer opens "
            "with a .tflite file (custom node data).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write artifacts and their benchmarks as one HTML page.

    Self-contained: sizes, accuracy, latency, what every layer became and how far it is from the model.
    """
    from edge_deploy.report import write_overlays, write_report

    page = write_report(folder, out)
    overlays = write_overlays(folder, model_explorer) if model_explorer is not None else ()
    if as_json:
        print_json({"report": page, "overlays": list(overlays)})
        return
    print(f"report: {page}")
    for path in overlays:
        print(f"overlay: {path}")
