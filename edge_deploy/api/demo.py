"""The main job on an embedded default: a CNN on digits and a DLRM on a generated click log, to both formats."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.api.benchmark import artifact_folders, benchmark_and_keep
from edge_deploy.api.convert import convert, refuse_foreign_folder
from edge_deploy.api.request import convert_request
from edge_deploy.core.artifact import Artifact
from edge_deploy.core.benchmark import BenchmarkReport
from edge_deploy.core.publish import published_folder
from edge_deploy.report import write_report

__all__ = ["Demo", "demo"]

TARGETS = ("tflite", "executorch")
PRECISIONS = ("float32", "int8", "int4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What the demo made."""

    artifacts: tuple[Artifact, ...]
    benchmarks: tuple[BenchmarkReport, ...]
    report: Path


def demo(out: Path, *, force: bool = False, progress: Callable[[str], None] = lambda stage: None) -> Demo:
    """Train both models, convert each to both formats at float32, INT8 and INT4, verify, benchmark, report.

    Args:
        out: Folder to write: cnn/, dlrm/ and report.html; appears in one rename.

    Raises:
        EdgeDeployError: As `convert` and `benchmark`.
    """
    refuse_foreign_folder(out, force=force)
    with tempfile.TemporaryDirectory(prefix="edge-deploy-demo-") as scratch, published_folder(out, force=force) as new:
        progress("train a small CNN on digits")
        cnn = _convert_cnn(Path(scratch), new / "cnn", progress)
        progress("train a small DLRM on a generated click log")
        dlrm = _convert_dlrm(Path(scratch) / "dlrm", new / "dlrm", progress)
        benchmarks: list[BenchmarkReport] = []
        for name in ("cnn", "dlrm"):
            progress(f"benchmark {name}: artifacts take turns")
            folders = artifact_folders([new / name])
            benchmarks += benchmark_and_keep(folders, min_seconds=0.5, runs=48, rounds=12)
            write_report(new / name, new / name / "report.html")
        progress("report")
        write_report(new, new / "report.html")
    return Demo(artifacts=(*cnn, *dlrm), benchmarks=tuple(benchmarks), report=out / "report.html")


def _convert_cnn(scratch: Path, out: Path, progress: Callable[[str], None]) -> tuple[Artifact, ...]:
    import torch

    from edge_deploy.zoo.small_cnn import train_digits, write_npz

    network, training, test = train_digits(seed=0)
    torch.save(network.state_dict(), scratch / "digits.pt")
    write_npz(training, scratch / "calibrate.npz")
    write_npz(test, scratch / "eval.npz")
    request = convert_request(
        "edge_deploy.zoo.small_cnn:small_cnn",
        to=TARGETS,
        precision=PRECISIONS,
        fallback="int8",
        weights=scratch / "digits.pt",
        inputs=["image:1,1,8,8"],
        calibrate=scratch / "calibrate.npz",
        calibrate_limit=256,
        evaluate=scratch / "eval.npz",
        out=out,
    )
    return convert(request, progress=lambda stage: progress(f"cnn: {stage}")).artifacts


def _convert_dlrm(scratch: Path, out: Path, progress: Callable[[str], None]) -> tuple[Artifact, ...]:
    from edge_deploy.zoo.click_models import train_click_model

    trained = train_click_model("criteo_generated", scratch)
    request = convert_request(
        trained.source,
        to=TARGETS,
        precision=PRECISIONS,
        fallback="int8",
        weights=scratch / "weights.pt",
        inputs=trained.inputs,
        search_path=[str(scratch)],
        calibrate=scratch / "calibration.npz",
        evaluate=scratch / "eval.npz",
        evaluate_limit=2000,
        features=scratch / "features.json",
        out=out,
    )
    return convert(request, progress=lambda stage: progress(f"dlrm: {stage}")).artifacts
