"""Train a CNN for INT4 or INT8, convert it, and say how far the files are from what was trained.

The folder it writes:

| file | what |
|---|---|
| `model.pt2` | the trained program, weights on their grids, scales inside: `convert model.pt2` takes them as they are |
| `calibration.npz`, `validation.npz` | training samples for ranges that training did not learn; the held samples |
| `artifacts/` | what `convert` made of it, with its report |
| `training.json` | `QatReport` |
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.capture import capture
from converters.compress.qat_train import Images, QatPlan, QatResult, train_cnn
from converters.contracts import Captured, CaptureRequest
from converters.samples import save_arrays, spool
from edge_deploy.api.convert import convert
from edge_deploy.api.debug_case import measured_answers
from edge_deploy.api.request import ConvertRequest
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.dataset import check_samples
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_errors import snr_db
from edge_deploy.core.publish import published_folder
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import write_json
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import find_description

__all__ = ["Mismatch", "QatReport", "QatRequest", "train_for_integers"]

CALIBRATION_SAMPLES = 200
HELD = 0.1
REPORT = "training.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class QatRequest:
    """A training as the user names it.

    Attributes:
        data: Training samples, as `open_dataset` reads them.
        validation: Samples that choose the best epoch; None takes a tenth of `data`.
        limit: Use at most so many training samples.
        targets: What the trained model is converted to.
    """

    source: CaptureRequest
    data: Path
    out: Path
    plan: QatPlan
    validation: Path | None = None
    limit: int | None = None
    targets: tuple[str, ...] = ("tflite", "executorch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """How an artifact answers the held samples, against the fake-quantized model that was trained.

    Attributes:
        top1: Share of samples with another argmax; None for a single output.
        snr_db: 10 log10(sum trained^2 / sum difference^2).
        float_agreement: Share of samples with the float model's argmax.
    """

    artifact: str
    top1: float | None
    snr_db: float
    float_agreement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QatReport:
    """What training did.

    Attributes:
        curve: After each epoch, the share of held samples with the float model's answer.
        float_agreement: Of the fake-quantized model that was kept.
        accuracy: Of it on held samples with labels, and `float_accuracy` of the float model; None without labels.
    """

    model: str
    bits: int
    layers: int
    folded_norms: int
    samples: int
    held: int
    curve: tuple[float, ...]
    best_epoch: int
    float_agreement: float | None
    accuracy: float | None
    float_accuracy: float | None
    mismatches: tuple[Mismatch, ...]


def train_for_integers(
    request: QatRequest, *, force: bool = False, progress: Callable[[str], None] = lambda stage: None
) -> QatReport:
    """Train as asked and write `request.out`, whole or not at all.

    Raises:
        BadInput: The model cannot be read, or the samples do not fit it.
        Unsupported: A model that cannot be trained like this, or a layer that a target cannot have at these bits.
        ToolchainError: torch.export or a target failed.
    """
    if request.out.exists() and not (force and (request.out / REPORT).is_file()):
        raise BadInput(f"{request.out}: exists already; choose another --out, or --force to replace what qat wrote.")
    with (
        tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch,
        published_folder(request.out, force=force) as out,
    ):
        work = Path(scratch)
        (work / "captured").mkdir()
        progress("capture the float model")
        captured = capture(request.source, work / "captured")
        training, validation = _images(request, captured, work)
        progress(f"train {request.plan.epochs} epochs")
        result = train_cnn(
            captured,
            training,
            validation,
            request.plan,
            out / "model.pt2",
            progress=lambda epoch, agreement: progress(f"epoch {epoch}: {agreement:.2%} as the float model"),
        )
        some = slice(CALIBRATION_SAMPLES)
        _save(Images(values=training.values[some], labels=training.labels[some]), out / "calibration.npz")
        _save(validation, out / "validation.npz")
        progress("convert")
        convert(
            ConvertRequest(
                capture=CaptureRequest(source=str(out / "model.pt2")),
                targets=request.targets,
                specs=(spec_for_recipe(f"int{request.plan.bits}"),),
                out=out / "artifacts",
                calibrate=out / "calibration.npz",
            )
        )
        progress("compare with what was trained")
        report = _report(request, captured, training, validation, result, out, work)
        write_json(report, out / REPORT)
    return report


def _images(request: QatRequest, captured: Captured, work: Path) -> tuple[Images, Images]:
    training = _read(request.data, request.limit, captured, work / "training.npz")
    if request.validation is not None:
        return training, _read(request.validation, None, captured, work / "validation.npz")
    order = np.random.default_rng(request.plan.seed).permutation(len(training.values))
    held, kept = np.split(order, [max(2, round(HELD * len(order)))])
    if len(kept) < 2 * request.plan.batch:
        raise BadInput(f"{request.data}: {len(order)} samples: at least {3 * request.plan.batch} are needed to train.")
    return (
        Images(values=training.values[kept], labels=training.labels[kept]),
        Images(values=training.values[held], labels=training.labels[held]),
    )


def _read(path: Path, limit: int | None, captured: Captured, spooled: Path) -> Images:
    dataset = open_dataset(find_description(path), inputs=captured.inputs, limit=limit)
    check_samples(dataset, captured.inputs)
    labels = spool(dataset, len(dataset), captured.inputs, spooled)
    with np.load(spooled, allow_pickle=False) as archive:
        return Images(values=archive[captured.inputs[0].name].astype(np.float32), labels=labels)


def _save(images: Images, path: Path) -> None:
    labels = {"y": images.labels.astype(np.int64)} if np.isfinite(images.labels).all() else {}
    save_arrays({"x": images.values, **labels}, path)


def _report(
    request: QatRequest,
    captured: Captured,
    training: Images,
    validation: Images,
    result: QatResult,
    out: Path,
    work: Path,
) -> QatReport:
    feeds, answers = work / "feeds.npz", work / "answers.npz"
    mismatches = []
    for manifest in sorted((out / "artifacts").glob(f"*/{MANIFEST}")):
        given, taken = _names(manifest.parent)
        save_arrays({given: validation.values}, feeds)
        save_arrays({taken: result.answers}, answers)
        got = measured_answers(manifest.parent, feeds=feeds, answers=answers, work=work)
        got = got.reshape(len(got), -1)
        several = got.shape[1] > 1
        mismatches.append(
            Mismatch(
                artifact=manifest.parent.name,
                top1=float((got.argmax(1) != result.answers.argmax(1)).mean()) if several else None,
                snr_db=snr_db(float(np.square(result.answers).sum()), float(np.square(got - result.answers).sum())),
                float_agreement=float((got.argmax(1) == result.float_answers.argmax(1)).mean()) if several else None,
            )
        )
    right = result.float_answers.argmax(1) if result.answers.shape[1] > 1 else None
    labelled = right is not None and bool(np.isfinite(validation.labels).all())
    return QatReport(
        model=captured.name,
        bits=request.plan.bits,
        layers=result.layers,
        folded_norms=result.folded_norms,
        samples=len(training.values),
        held=len(validation.values),
        curve=result.curve,
        best_epoch=result.best_epoch,
        float_agreement=float((result.answers.argmax(1) == right).mean()) if right is not None else None,
        accuracy=float((result.answers.argmax(1) == validation.labels).mean()) if labelled else None,
        float_accuracy=float((right == validation.labels).mean()) if labelled and right is not None else None,
        mismatches=tuple(mismatches),
    )


def _names(folder: Path) -> tuple[str, str]:
    """Of the first input and output in the source's terms."""
    from runtimes.folder import read_artifact

    artifact = read_artifact(folder)
    return artifact.source_inputs[0].name, artifact.source_outputs[0].name
