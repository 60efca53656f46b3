"""`edge-deploy export-tflm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["command"]


def command(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A .tflite file, or the folder of an artifact that has one.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the sources.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the folder if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write C++ sources for TensorFlow Lite Micro.

    The model as an array, its operators, its arena.

    Every operator is tried on its kernels first; what they refuse is named with its layer.
    """
    from edge_deploy.api.export_tflm import export_tflm

    found = export_tflm(artifact, out, force=force)
    if as_json:
        print_json({"folder": out, "exported": found})
        return
    print(f"{out}: {', '.join(file.name for file in found.files)}")
    print(f"operators: {', '.join(found.operators)}")
    print(
        f"model {found.model_bytes} bytes; arena {found.arena.total_bytes} bytes "
        f"({found.arena.runtime}, {found.arena.kernels})"
    )
