"""`edge-deploy package`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table

__all__ = ["command"]


def command(
    folder: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder with manifest.json.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new project.")],
    android: Annotated[bool, typer.Option("--android", help="A Gradle library module in Kotlin.")] = False,
    ios: Annotated[bool, typer.Option("--ios", help="A Swift package (ExecuTorch) or pod (LiteRT).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a phone project around an artifact.

    The model as an uncompressed asset, the official runtime as a dependency, and the code that encodes inputs (rows by
    features.json, pixels by the manifest) and decodes outputs. Its C part is compiled and tested here.
    """
    from edge_deploy.api.package import package
    from edge_deploy.core.errors import BadInput

    if android == ios:
        raise BadInput("package: choose one of --android and --ios.")
    report = package(folder, platform="android" if android else "ios", out=out, force=force)
    if as_json:
        print_json({"package": report})
        return
    rows = [(each.part, each.outcome) for each in report.built]
    print_table(f"{report.folder}: {len(report.files)} files, runtime {report.dependency}", ("part", "outcome"), rows)
    print("DELIVERY.md says how it reaches people")
