"""Rows of `make bench-qat`: CNNs at INT4 with and without training, on images that neither training nor choices saw.

ResNet-20 (PyTorch) and ResNet-8 (Keras) are trained on 4,000 CIFAR-10 training images and judged on ic01's 200 test
images, both formats, paired with the float model.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.capture import capture, run_float
from converters.compress.qat_train import QatPlan
from converters.contracts import CaptureRequest
from converters.samples import save_arrays, spool
from edge_deploy.api.convert import convert
from edge_deploy.api.debug_case import measured_answers
from edge_deploy.api.judge import paired_differences
from edge_deploy.api.qat import QatRequest, train_for_integers
from edge_deploy.api.request import ConvertRequest, parse_input
from edge_deploy.bench.models import DESCRIPTIONS, development_data
from edge_deploy.bench.rows import kept, markdown, revision
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.zoo.datasets import open_dataset
from runtimes.folder import read_artifact

__all__ = ["cnn_table"]

SEEDS = 3
FORMATS = ("tflite", "executorch")
CALIBRATION_SAMPLES = 500
LARGEST_LOSS = 0.01
# The float model alone teaches: labels of images that it knows by heart add nothing to what it says of moved ones.
PLAN = QatPlan(bits=4, epochs=3, distill=1.0, crop=4, flip=True)
COLUMNS = (
    "net",
    "INT4",
    "format",
    "agreement with float",
    "accuracy - float's (95 %)",
    "otherwise than trained",
    "aim",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Net:
    name: str
    source: CaptureRequest
    train: str
    test: str


def _nets(data: Path) -> tuple[_Net, ...]:
    models = data / "models"
    return (
        _Net(
            name="ResNet-20",
            source=CaptureRequest(
                source="edge_deploy.zoo.resnet:resnet20",
                weights=models / "cifar10_resnet_pytorch" / "resnet20-12fca82f.th",
                inputs=(parse_input("image:1,3,32,32"),),
            ),
            train="cifar10_train4k_normalised.toml",
            test="ic01_normalised.toml",
        ),
        _Net(
            name="ResNet-8",
            source=CaptureRequest(source=str(models / "mlperf_tiny_ic_resnet8" / "pretrainedResnet.h5")),
            train="cifar10_train4k.toml",
            test="ic01.toml",
        ),
    )


def cnn_table(*, fresh: bool, tell: Callable[[str], None]) -> tuple[str, bool]:
    """The table in Markdown, medians over the seeds, and whether trained INT4 is within a point of float."""
    lines: list[list[object]] = []
    is_met = True
    for net in _nets(development_data()):
        rows = Path("build/bench-qat/cnn")
        tell(f"{net.name}: INT4 without training")
        plain = kept(rows, f"{net.name}-plain", lambda net=net: _plain(net), fresh=fresh)  # type: ignore[misc]
        trained = []
        for seed in range(SEEDS):
            tell(f"{net.name}: INT4 trained, seed {seed}")
            trained.append(
                kept(rows, f"{net.name}-{seed}", lambda net=net, seed=seed: _trained(net, seed), fresh=fresh)  # type: ignore[misc]
            )
        for place, kind in enumerate(plain):
            lines.append([net.name, "after training", kind["format"], *_told([kind]), "", ""])
            runs = [each[place] for each in trained]
            loss = -float(np.median([run["difference"] for run in runs]))
            good = loss <= LARGEST_LOSS
            is_met &= good
            mismatch = f"{np.median([run['mismatch'] for run in runs]):.2%}"
            verdict = f"{'met' if good else 'NOT MET'} (within {LARGEST_LOSS:.0%})"
            lines.append([net.name, f"trained, {SEEDS} seeds", kind["format"], *_told(runs), mismatch, verdict])
    return markdown(COLUMNS, lines), is_met


def _told(runs: list[dict[str, Any]]) -> tuple[str, str]:
    agreement = [run["agreement"] for run in runs]
    spread = f" ({min(agreement):.1%} to {max(agreement):.1%})" if len(runs) > 1 else ""
    middle, low, high = (float(np.median([run[key] for run in runs])) for key in ("difference", "low", "high"))
    return f"{np.median(agreement):.1%}{spread}", f"{middle:+.2%} ({low:+.2%} to {high:+.2%})"


def _trained(net: _Net, seed: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        out = Path(scratch, "qat")
        request = QatRequest(source=net.source, data=DESCRIPTIONS / net.train, out=out, plan=replace(PLAN, seed=seed))
        report = train_for_integers(request)
        mismatch = {each.artifact.partition("-")[0]: each.top1 for each in report.mismatches}
        rows = _judged(net, out / "artifacts", Path(scratch))
        return [{**row, "mismatch": mismatch[row["format"]], "curve": list(report.curve)} for row in rows]


def _plain(net: _Net) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        convert(
            ConvertRequest(
                capture=net.source,
                targets=FORMATS,
                specs=(spec_for_recipe("int4"),),
                out=Path(scratch, "out"),
                calibrate=DESCRIPTIONS / net.train,
                calibrate_limit=CALIBRATION_SAMPLES,
            )
        )
        return _judged(net, Path(scratch, "out"), Path(scratch))


def _judged(net: _Net, folder: Path, work: Path) -> list[dict[str, Any]]:
    """INT4 artifacts of both formats on the test images, against the net in float."""
    home = work / "captured"
    home.mkdir()
    captured = capture(net.source, home)
    dataset = open_dataset(DESCRIPTIONS / net.test, inputs=captured.inputs)
    feeds, answers = work / "feeds.npz", work / "answers.npz"
    labels = spool(dataset, len(dataset), captured.inputs, feeds)
    run_float(captured, feeds, answers)
    images, want = (_first(path) for path in (feeds, answers))
    rows = []
    for kind in FORMATS:
        made = read_artifact(folder / f"{kind}-int4")
        # A trained net's file may call its output otherwise than the source does.
        save_arrays({made.source_inputs[0].name: images}, feeds)
        save_arrays({made.source_outputs[0].name: want}, answers)
        got = measured_answers(folder / f"{kind}-int4", feeds=feeds, answers=answers, work=work)
        paired = paired_differences(labels, want, got, meaning=captured.outputs[0].meaning)[0]
        agreement = float((want.argmax(-1) == got.reshape(want.shape).argmax(-1)).mean())
        told = {"difference": paired.difference, "low": paired.low, "high": paired.high}
        rows.append({"format": kind, "agreement": agreement, **told})
    return rows


def _first(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        found: np.ndarray = archive[archive.files[0]]
    return found


if __name__ == "__main__":
    try:
        print(f"revision {revision()}\n")
        text, met = cnn_table(fresh="--fresh" in sys.argv, tell=lambda line: print(f"- {line}", file=sys.stderr))
        print(text)
        sys.exit(int(not met))
    except EdgeDeployError as error:
        sys.exit(f"error: {error}")
