"""`edge-deploy export-repository`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["command"]


def command(
    artifacts: Annotated[
        list[Path], typer.Argument(metavar="ARTIFACT...", help="Artifact folders, or folders of halves (split).")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; appears in one rename.")],
    layout: Annotated[str, typer.Option(metavar="NAME", help="Whose folder it is: mlserver.")] = "mlserver",
    force: Annotated[bool, typer.Option("--force", help="Replace DIR.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model folder for another server of the Open Inference Protocol.

    `mlserver start DIR` serves it, in an environment with edge-deploy and the artifact's runtime; `edge-deploy run
    --cloud` works with such a server as with our own.

    \b
    Example:
      edge-deploy export-repository build/halves --layout mlserver --out build/repository
    """
    from runtimes.serving.repository import export_repository

    offers = export_repository(artifacts, out, layout=layout, force=force)
    if as_json:
        print_json({"folder": out, "models": [{"name": o.info.name, "version": o.info.version} for o in offers]})
        return
    for offer in offers:
        print(f"{offer.info.name} (version {offer.info.version[:12]})")
    print(f"{len(offers)} models in {out}; serve them with: mlserver start {out}")
