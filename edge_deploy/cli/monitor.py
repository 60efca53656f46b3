"""`edge-deploy monitor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table, progress_bar
from edge_deploy.cli.source_options import OriginInputs, OriginModule, OriginShapes, Weights

if TYPE_CHECKING:
    from edge_deploy.api.monitor_values import Check, MonitorReport

__all__ = ["command"]

RECALIBRATE = 8


def command(
    folder: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder with manifest.json.")],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA", help="Fresh samples, as for convert --eval; with --schema a click log. Labels are best."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="FILE", help="The float model that the artifact came from.")
    ] = None,
    source: OriginModule = None,
    weights: Weights = None,
    input_: OriginInputs = [],  # noqa: B006
    shape: OriginShapes = [],  # noqa: B006
    reference: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Samples like those it was made for, to tell what has moved since."),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(metavar="FILE", help='DATA are raw rows: what their columns mean, as for train; or "criteo".'),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", help="Look at N samples at most.", min=20)] = 100_000,
    layer_samples: Annotated[
        int, typer.Option(metavar="N", help="Look at every layer's values on so many of them.", min=1)
    ] = 256,
    max_drop: Annotated[
        float, typer.Option(metavar="DROP", help="Of accuracy or AUC against the float model, when resolved at 95 %.")
    ] = 0.005,
    max_shift: Annotated[
        float, typer.Option(metavar="SD", help="Of the mean score against the float model's, in standard deviations.")
    ] = 0.1,
    max_drift: Annotated[
        float, typer.Option(metavar="PSI", help="Of scores against --reference: population stability index.")
    ] = 0.25,
    max_overflow: Annotated[
        float, typer.Option(metavar="SHARE", help="Of a layer's values outside its stored range, beyond --reference's.")
    ] = 0.01,
    max_unseen: Annotated[
        float, typer.Option(metavar="SHARE", help="Of a feature's values not in its vocabulary, beyond --reference's.")
    ] = 0.05,
    as_json: AsJson = False,
) -> None:
    """Say whether it is time to recalibrate an artifact.

    Compares it with its float model on fresh samples: quality, scores, values that leave the stored ranges, ids that
    the vocabulary does not know. Exits with 8 when a limit is passed.

    \b
    Example:
      edge-deploy monitor build/resnet8/tflite-int8 --model resnet8.h5
        --data this-week.npz --reference test.npz
    """
    from edge_deploy.api.monitor import monitor
    from edge_deploy.api.monitor_values import Limits, MonitorRequest
    from edge_deploy.api.request import capture_request
    from edge_deploy.core.errors import BadInput
    from edge_deploy.zoo.click_schema import criteo_schema, read_schema

    if data is None:
        raise BadInput("--data: name fresh samples to compare on.")
    columns = None
    if schema is not None:
        columns = criteo_schema() if schema == "criteo" else read_schema(Path(schema))
    request = MonitorRequest(
        folder=folder,
        source=capture_request(model, source, weights=weights, inputs=input_, shapes=shape),
        data=data,
        reference=reference,
        schema=columns,
        limit=limit,
        layer_samples=layer_samples,
        limits=Limits(drop=max_drop, shift=max_shift, drift=max_drift, overflow=max_overflow, unseen=max_unseen),
    )
    with progress_bar(2 if reference is None else 3) as progress:
        report = monitor(request, progress=progress)
    if as_json:
        print_json({"monitor": report, "recalibrate": report.is_time_to_recalibrate})
    else:
        _print(report)
    if report.is_time_to_recalibrate:
        raise typer.Exit(RECALIBRATE)


def _print(report: MonitorReport) -> None:
    shown = [check for check in report.checks if check.is_over or check.kind not in ("overflow", "unseen")]
    for kind in ("overflow", "unseen"):
        within = [check for check in report.checks if check.kind == kind and not check.is_over]
        shown += sorted(within, key=lambda check: -check.value)[:1]
    rows = [("over" if check.is_over else "within", check.text, _limit(check)) for check in shown]
    print_table(f"{report.artifact} on {report.samples} samples of {report.data}", ("limit", "found", "at most"), rows)
    for note in report.notes:
        print(f"note: {note}")
    over = sum(check.is_over for check in report.checks)
    if over:
        print(f"time to recalibrate: {over} of {len(report.checks)} checks are over their limits")
    else:
        print(f"as it should be: all {len(report.checks)} checks are within their limits")


def _limit(check: Check) -> str:
    if check.kind in ("overflow", "unseen"):
        return f"{check.limit:.2%}"
    return f"{check.limit:g}"
