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
    as_json: AsJson = False,
) -> None:
    """Write artifacts and their benchmarks as one HTML page.

    Self-contained: sizes, accuracy, latency, what every layer became and how far it is from the model.
    """
    from edge_deploy.report import write_report

    page = write_report(folder, out)
    if as_json:
        print_json({"report": page})
    else:
        print(f"report: {page}")
