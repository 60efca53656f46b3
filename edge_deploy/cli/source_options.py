"""How commands are told which PyTorch module a model is: to be converted, or the origin of an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Module", "ModuleInputs", "ModuleShapes", "OriginInputs", "OriginModule", "OriginShapes", "Weights"]

Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Checkpoint of the --source module: a state dict, .safetensors, or a folder of .npy."
    ),
]
Module = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FACTORY",
        help="Function that returns a PyTorch module. It is imported and called: name only code that you trust.",
    ),
]
ModuleInputs = Annotated[
    list[str],
    typer.Option(
        "--input", metavar="NAME:SHAPE[:DTYPE]", help="An input of the --source module, batch first. Repeatable."
    ),
]
ModuleShapes = Annotated[
    list[str], typer.Option(metavar="NAME:SHAPE", help="Sizes for an input that has dynamic ones. Repeatable.")
]
OriginModule = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FACTORY",
        help="Or the function that returned its PyTorch module; imported and called: only code that you trust.",
    ),
]
OriginInputs = Annotated[
    list[str],
    typer.Option("--input", metavar="NAME:SHAPE[:DTYPE]", help="An input of the --source module. Repeat for each."),
]
OriginShapes = Annotated[
    list[str], typer.Option(metavar="NAME:SHAPE", help="Sizes for an input that has dynamic ones, as for convert.")
]
