"""`edge-deploy calibration`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json
from edge_deploy.cli.source_options import Module, ModuleInputs, ModuleShapes, Weights

__all__ = ["command"]

SIGNS = {"serious": "SERIOUS", "warning": "warning", "note": "note   "}


def command(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Trained model, as for convert. For a PyTorch module: --source."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="The samples to look at: whatever convert takes as --calibrate. Required."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Look at N samples at most.")] = None,
    source: Module = None,
    weights: Weights = None,
    input_: ModuleInputs = [],  # noqa: B006
    shape: ModuleShapes = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Check calibration samples before they are used.

    Runs them through the float model and reports wrong scale or layout, constant inputs, copies, channels that no
    sample reaches, ranges that are not settled, and about how many more samples are needed.

    \b
    Example:
      edge-deploy calibration resnet8.h5 --calibrate train.npz
    """
    from edge_deploy.api.calibration import check_calibration
    from edge_deploy.api.request import capture_request
    from edge_deploy.core.errors import BadInput
    from edge_deploy.zoo.description import find_description

    if calibrate is None:
        raise BadInput("--calibrate: name the samples to look at.")
    request = capture_request(model, source, weights=weights, inputs=input_, shapes=shape)
    report = check_calibration(request, find_description(calibrate), limit=limit)
    if as_json:
        print_json(report)
        return
    print(f"{report.model}: {report.samples} samples of {report.data} through {report.layers} layers")
    for finding in report.findings:
        print(f"{SIGNS[finding.severity]}  {finding.where + ': ' if finding.where else ''}{finding.text}")
        if finding.remedy:
            print(f"         -> {finding.remedy}")
    if not report.findings:
        print("nothing found that speaks against these samples.")
