"""How commands that convert are told to quantize, beside the precision: convert and search."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Io", "Percentile", "PlainPte", "Ranges", "TableScale", "WithPass", "WithoutPass"]

Io = Annotated[str, typer.Option(metavar="float|int8", help="Type of the artifact's inputs and outputs.")]
TableScale = Annotated[
    str,
    typer.Option(metavar="row|table", help="INT4 tables: a scale for each row, or (smaller) one for each table."),
]
PlainPte = Annotated[
    bool,
    typer.Option(
        "--plain-pte",
        help="INT4 CNNs on ExecuTorch as one .pte without a .ptd: 1x1 convolutions become linears with packed "
        "4-bit weights; other convolutions are refused by name, or INT8 with --fallback int8.",
    ),
]
Ranges = Annotated[
    str,
    typer.Option(
        metavar="min-max|percentile|kl|mse",
        help="How calibration sets the range of an activation: all values, all but the rarest, or as much as loses "
        "least by relative entropy (kl) or squared error (mse).",
    ),
]
Percentile = Annotated[
    float,
    typer.Option(metavar="PERCENT", help="With --ranges percentile: share of the values that the range covers."),
]
WithPass = Annotated[
    list[str],
    typer.Option(
        metavar="PASS",
        help="Also try first-last-int8: the first and last layer keep 8 bits under --precision int4. Repeatable.",
    ),
]
WithoutPass = Annotated[
    list[str],
    typer.Option(
        metavar="PASS|all",
        help="Do not try fold-batch-norms, equalise-ranges, compensated-rounding or correct-biases. Each is tried "
        "on held calibration samples, and applied only if it lowers the error. Repeatable.",
    ),
]
