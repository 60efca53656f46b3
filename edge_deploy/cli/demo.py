"""`edge-deploy demo`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json
from edge_deploy.cli.tables import print_artifacts, print_benchmarks

__all__ = ["command"]


def command(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write, whole or not at all.")] = Path(
        "build/demo"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace --out, if edge-deploy wrote it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the main job on two small models.

    Trains a CNN and a DLRM, converts both to both formats at float32, INT8 and INT4, verifies, benchmarks
    and writes one report.
    """
    start = time.monotonic()

    def progress(stage: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {stage}", file=sys.stderr, flush=True)

    progress("load")
    from edge_deploy.api.demo import demo

    result = demo(out, force=force, progress=progress)
    if as_json:
        print_json(
            {"report": result.report, "artifacts": list(result.artifacts), "benchmarks": list(result.benchmarks)}
        )
        return
    print_artifacts("what was made", result.artifacts)
    for name in dict.fromkeys(report.artifact for report in result.benchmarks):
        print_benchmarks(tuple(report for report in result.benchmarks if report.artifact == name))
    print(f"main job: {time.monotonic() - start:.0f} s")
    print(f"report: {result.report.resolve()}")
