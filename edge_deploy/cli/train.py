"""`edge-deploy train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["command"]


def command(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="Click log: a TSV of Criteo's layout, or with --schema.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write, whole or not at all.")] = Path(
        "build/recommender"
    ),
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="TOML that says what the columns of a CSV log mean; see docs/train-a-recommender.md."
        ),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows to stop by; without: a tenth of LOG, by hash of the row.")
    ] = None,
    test: Annotated[Path | None, typer.Option(metavar="FILE", help="Rows to judge by; likewise.")] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Begin with the features, sizes and weights of a former training, e.g. a float one."
        ),
    ] = None,
    modulus: Annotated[
        int | None, typer.Option(metavar="N", help="Criteo: hash values into N ids instead of learning vocabularies.")
    ] = None,
    min_count: Annotated[
        int, typer.Option(metavar="N", help="Criteo: values seen less often in training count as unseen.")
    ] = 2,
    bits: Annotated[
        int | None,
        typer.Option(
            metavar="4|8|32",
            help="Train for tables of so many bits (DQRM); 32 trains in float. Without: 4, or 32 with --robe.",
        ),
    ] = None,
    mlp_bits: Annotated[
        int | None,
        typer.Option(metavar="4|8|32", help="The same for fully connected layers; without: 8, or 32 with --bits 32."),
    ] = None,
    float_share: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Of the first epoch: trained in float before the bits come; 0 with --start."
        ),
    ] = 0.9,
    table_scale: Annotated[
        str, typer.Option(metavar="row|table", help="A scale for each row, or (smaller) one for each table.")
    ] = "table",
    table_range: Annotated[
        str,
        typer.Option(
            metavar="mse|max",
            help="A table's scale: for the least squared error of the rows that are looked up, or from the table's "
            "largest value.",
        ),
    ] = "mse",
    refresh: Annotated[int, typer.Option(metavar="STEPS", help="Steps between two looks for a table's scale.")] = 50,
    dim: Annotated[int, typer.Option(metavar="N", help="Width of the embeddings.")] = 16,
    bottom: Annotated[str, typer.Option(metavar="N,N", help="Hidden layers of the bottom MLP.")] = "64",
    top: Annotated[str, typer.Option(metavar="N,N", help="Hidden layers of the top MLP.")] = "128,64",
    interaction: Annotated[str, typer.Option(metavar="dot|concat", help="How vectors meet.")] = "dot",
    optimiser: Annotated[
        str, typer.Option(metavar="rowwise-adagrad|adagrad|sgd|adam", help="Tables' gradients are sparse with each.")
    ] = "rowwise-adagrad",
    rate: Annotated[float, typer.Option(metavar="RATE", help="Learning rate.")] = 0.02,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the log at most.")] = 2,
    patience: Annotated[
        int, typer.Option(metavar="N", help="Stop after N looks at the validation rows without a better AUC.")
    ] = 2,
    evaluate_every: Annotated[
        int | None, typer.Option(metavar="STEPS", help="Steps between two such looks; without: an epoch.")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option(metavar="STEPS", help="A killed run goes on from its last checkpoint when run again.")
    ] = 500,
    batch: Annotated[int, typer.Option(metavar="ROWS", help="Rows of a mini-batch.")] = 2048,
    exchange: Annotated[
        str,
        typer.Option(
            metavar="dense|sparse|sparse-int8", help="What of the gradients travels between processes of torchrun."
        ),
    ] = "sparse",
    robe: Annotated[
        int,
        typer.Option(
            metavar="TIMES", help="All tables share one array, so many times smaller than they are (ROBE), e.g. 100."
        ),
    ] = 0,
    robe_block: Annotated[
        int,
        typer.Option(metavar="VALUES", help="With --robe: neighbouring values of the array that are read together."),
    ] = 8,
    seed: Annotated[int, typer.Option(metavar="N", help="Of weights and shuffles.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace --out, if edge-deploy wrote it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a DLRM on a click log, in float or for INT4.

    Writes weights, features.json and samples for `edge-deploy convert`, which keeps the scales that training learned.
    Several processes: torchrun --nproc-per-node=2 -m edge_deploy.cli.main train LOG

    \b
    Example:
      edge-deploy train day.tsv.gz --bits 4 --out build/recommender
      cd build/recommender
      edge-deploy convert --source dlrm_day:dlrm_day --weights weights.pt
        --features features.json --input dense:1,13 --input sparse:1,26:int64
        --precision int4 --fallback int8 --eval eval.npz
    """
    from converters.compress.dqrm import DqrmPlan
    from converters.compress.train import TrainPlan
    from edge_deploy.api.train import TrainRequest, train_recommender
    from edge_deploy.cli.output import human_bytes, progress_bar
    from edge_deploy.core.errors import BadInput
    from edge_deploy.zoo.click_schema import criteo_schema, read_schema

    if interaction not in ("dot", "concat"):
        raise BadInput(f"--interaction {interaction}: must be dot or concat.")
    if schema is not None and (modulus is not None or min_count != 2):
        raise BadInput("--modulus and --min-count are for Criteo's layout; a --schema says it for each column.")
    bits = bits or (32 if robe else 4)
    mlp = mlp_bits or (32 if bits == 32 else 8)
    quantized = None
    if bits != 32 or mlp != 32:
        quantized = DqrmPlan(
            table_bits=bits,
            mlp_bits=mlp,
            table_scale=table_scale,  # type: ignore[arg-type]  # it checks them
            table_range=table_range,  # type: ignore[arg-type]  # likewise
            refresh_steps=refresh,
        )
    request = TrainRequest(
        log=log,
        schema=read_schema(schema) if schema is not None else criteo_schema(modulus=modulus, min_count=min_count),
        out=out,
        validation=validation,
        test=test,
        start=start,
        quantized=quantized,
        float_share=float_share,
        dim=dim,
        bottom=_widths("--bottom", bottom),
        top=_widths("--top", top),
        interaction=interaction,
        batch=batch,
        robe=robe,
        robe_block=robe_block,
        seed=seed,
        exchange=exchange,  # type: ignore[arg-type]  # it is checked where processes are several
        plan=TrainPlan(
            optimiser=optimiser,  # type: ignore[arg-type]  # make_optimisers checks it
            rate=rate,
            epochs=epochs,
            patience=patience,
            evaluate_every=evaluate_every,
            checkpoint_every=checkpoint_every,
        ),
    )
    with progress_bar(4) as progress:
        report = train_recommender(request, force=force, progress=progress)
    if int(os.environ.get("RANK", "0")):
        return  # of several processes the first one tells
    if as_json:
        print_json({"folder": out, "training": report})
        return
    kind = "float" if quantized is None else f"{bits}-bit tables, {mlp}-bit MLP"
    print(f"{out}: {kind}, {sum(report.table_rows)} rows in {len(report.table_rows)} tables of width {dim}")
    print(f"rows: {report.rows[0]} training, {report.rows[1]} validation, {report.rows[2]} test")
    looks = ", ".join(f"{value:.4f} at step {step}" for step, value in report.validation_auc)
    print(f"validation AUC: {looks}; kept: step {report.best_step}")
    if report.test is not None:
        test_quality = report.test
        print(
            f"test: AUC {test_quality.auc:.4f}, accuracy {test_quality.accuracy:.4f}, log loss "
            f"{test_quality.log_loss:.4f}, normalized entropy {test_quality.normalized_entropy:.4f}, "
            f"calibration {test_quality.calibration:.4f}"
        )
    if report.processes > 1:
        print(f"{report.processes} processes, each hands over {human_bytes(report.payload_bytes_a_step)} a step")
    columns = f"--input dense:1,{report.dense_features} --input sparse:1,{len(report.table_rows)}:int64"
    precision = {4: "int4", 8: "int8", 32: "int8"}[bits]
    print(
        f"next: cd {out} && edge-deploy convert --source {report.source} --weights weights.pt --features features.json "
        f"{columns} --precision {precision} --fallback int8 --eval eval.npz"
    )


def _widths(option: str, text: str) -> tuple[int, ...]:
    from edge_deploy.core.errors import BadInput

    try:
        widths = tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise BadInput(f"{option} {text}: must be widths like 64,32.")
    return widths
