"""`edge-deploy report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(help="Folder that `convert` wrote: one folder an artifact.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default: report.html in the folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one self-contained HTML page: sizes, accuracy, latency, what every layer became."""
    from edge_deploy.report import write_report

    page = out or folder / "report.html"
    write_report(folder, page)
    if as_json:
        print_json({"report": page})
    else:
        print(f"report: {page}")
