"""`edge-deploy qat`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json, print_table, progress_bar
from edge_deploy.cli.source_options import Module, ModuleInputs, ModuleShapes, Weights

if TYPE_CHECKING:
    from edge_deploy.api.qat import QatReport

__all__ = ["command"]


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A trained CNN in float, as for convert; or --source.")
    ] = None,
    source: Module = None,
    weights: Weights = None,
    input_: ModuleInputs = [],  # noqa: B006
    shape: ModuleShapes = [],  # noqa: B006
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Training samples, as for convert --calibrate. Required.")
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Samples that choose the best epoch; without: a tenth of --data."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Use at most N training samples.")] = None,
    bits: Annotated[int, typer.Option(metavar="4|8", help="Of all weights; activations have 8.")] = 4,
    to: Annotated[str, typer.Option(metavar="TARGETS", help="What it is converted to.")] = "tflite,executorch",
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over the training samples.")] = 12,
    batch: Annotated[int, typer.Option(metavar="N", help="Samples of a mini-batch.")] = 64,
    rate: Annotated[float, typer.Option(metavar="RATE", help="Learning rate; it falls to 0 along a cosine.")] = 1e-4,
    ranges: Annotated[
        str, typer.Option(metavar="learned|moving-average", help="How ends of activations come about.")
    ] = "learned",
    distill: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the loss that follows the float model; 1 needs no labels.")
    ] = 0.7,
    frozen_from: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the epochs behind which batch norms stand still; 0: all.")
    ] = 0.0,
    crop: Annotated[int, typer.Option(metavar="PIXELS", help="Move training images by up to so many pixels.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror half of the training images.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Of order, augmentation and the held tenth.")] = 0,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write, whole or not at all.")] = Path(
        "build/qat"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace --out, if qat wrote it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a CNN for INT4 or INT8 and convert it.

    The model may come from PyTorch, Keras, ONNX or TFLite; its own answers teach. Scales that training learned are
    stored as they are, and how often the files answer otherwise than what was trained is told.

    \b
    Example:
      edge-deploy qat resnet8.h5 --data train.npz --bits 4 --crop 4 --flip
    """
    from converters.compress.qat_train import QatPlan
    from edge_deploy.api.qat import QatRequest, train_for_integers
    from edge_deploy.api.request import capture_request
    from edge_deploy.core.errors import BadInput

    if data is None:
        raise BadInput("--data: name training samples.")
    plan = QatPlan(
        bits=bits,
        epochs=epochs,
        batch=batch,
        rate=rate,
        ranges=ranges,  # type: ignore[arg-type]  # it checks them
        distill=distill,
        frozen_from=frozen_from,
        crop=crop,
        flip=flip,
        seed=seed,
    )
    request = QatRequest(
        source=capture_request(model, source, weights=weights, inputs=input_, shapes=shape),
        data=data,
        validation=validation,
        limit=limit,
        plan=plan,
        targets=tuple(to.split(",")),
        out=out,
    )
    with progress_bar(epochs + 4) as progress:
        report = train_for_integers(request, force=force, progress=progress)
    if as_json:
        print_json({"folder": out, "training": report})
    else:
        _print(report, out)


def _print(report: QatReport, out: Path) -> None:
    print(
        f"{report.model}: {report.layers} layers at {report.bits} bits trained on {report.samples} samples, "
        f"{report.folded_norms} batch norms folded; kept epoch {report.best_epoch} of {len(report.curve)}"
    )
    if report.accuracy is not None:
        print(
            f"accuracy on {report.held} held samples: float {report.float_accuracy:.4f}, trained {report.accuracy:.4f}"
        )
    rows = [
        (
            each.artifact,
            "" if each.float_agreement is None else f"{each.float_agreement:.2%}",
            "" if each.top1 is None else f"{each.top1:.2%}",
            "identical" if each.snr_db >= 999 else f"{each.snr_db:.1f}",
        )
        for each in report.mismatches
    ]
    columns = ("artifact", "as the float model", "otherwise than trained", "SNR dB against trained")
    print_table(f"{report.held} held samples", columns, rows)
    print(f"written: {out}; convert {out / 'model.pt2'} again at int{report.bits} with any other option")
