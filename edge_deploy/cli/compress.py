"""`edge-deploy compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json
from edge_deploy.cli.source_options import ModuleInputs

__all__ = ["command"]


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FACTORY",
            help="Function that returns the PyTorch module. It is imported and called: name only code that you trust.",
        ),
    ],
    weights: Annotated[Path, typer.Option(metavar="FILE", help="Its trained checkpoint. Required.")],
    bits: Annotated[int, typer.Option(metavar="4|8", help="Of the tables' rows.")] = 4,
    table_scale: Annotated[
        str, typer.Option(metavar="row|table", help="A scale for each row, or (smaller) one for each table.")
    ] = "row",
    range_: Annotated[
        str,
        typer.Option(
            "--range", metavar="greedy|min-max", help="Scales of least squared error, or that reach the extremes."
        ),
    ] = "greedy",
    rounding: Annotated[
        str, typer.Option(metavar="nearest|stochastic", help="Stochastic rounding is right on average, by --seed.")
    ] = "nearest",
    hot: Annotated[
        str, typer.Option(metavar="SHARE", help="Share of all rows that stays wide, e.g. 5%: those counted most often.")
    ] = "0%",
    hot_bits: Annotated[int, typer.Option(metavar="16|32", help="Of hot rows.")] = 16,
    counts: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="counts.npz of `edge-deploy train`, or training samples to count: whatever --calibrate takes.",
        ),
    ] = None,
    input_: ModuleInputs = [],  # noqa: B006
    seed: Annotated[int, typer.Option(metavar="N", help="Of stochastic rounding.")] = 0,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write, whole or not at all.")] = Path(
        "build/compressed"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace --out, if edge-deploy wrote it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compress the embedding tables of a trained PyTorch checkpoint, without training.

    Writes a checkpoint whose tables lie on their grid, with scales and hot rows beside them: convert takes it as
    --weights and stores the same integers in every format. Reports each table's error with every way of rounding.

    \b
    Example:
      edge-deploy compress my.nets:dlrm --weights dlrm.pt --hot 5% --counts train.npz
        --input dense:1,13 --input sparse:1,26:int64 --out build/compressed
      edge-deploy convert --source my.nets:dlrm --weights build/compressed/weights.pt --precision int4 ...
    """
    from converters.compress.tables import TablePlan
    from edge_deploy.api.compress import CompressRequest, compress
    from edge_deploy.api.request import parse_input

    plan = TablePlan(
        bits=bits,
        scale=table_scale,  # type: ignore[arg-type]  # checked by the plan
        range=range_,  # type: ignore[arg-type]
        rounding=rounding,  # type: ignore[arg-type]
        seed=seed,
        hot_bits=hot_bits,
    )
    request = CompressRequest(
        source=source,
        weights=weights,
        out=out,
        plan=plan,
        hot=_share(hot),
        counts=counts,
        inputs=tuple(parse_input(text) for text in input_),
    )
    report = compress(request, force=force)
    if as_json:
        print_json(report)
        return
    print(f"{'table':<24} {'rows':>10} {'dim':>4} {'hot':>8} {'hits':>6} {'error':>7} {'kB':>10}   other ways: error")
    for table in report.tables:
        hits = "" if table.hits is None else f"{table.hits:.1%}"
        tried = ", ".join(f"{each.scale} {each.range} {each.rounding} {each.error:.2%}" for each in table.tried)
        print(
            f"{table.name:<24} {table.rows:>10} {table.dim:>4} {table.hot_rows:>8} {hits:>6} {table.error:>7.2%} "
            f"{table.bytes / 1e3:>10.1f}   {tried}"
        )
    print(f"tables: {report.float_bytes / 1e6:.3f} MB as float32, {report.bytes / 1e6:.3f} MB now -> {out}")


def _share(text: str) -> float:
    from edge_deploy.core.errors import BadInput

    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError as error:
        raise BadInput(f"--hot {text}: must be a share, e.g. 5% or 0.05.") from error
