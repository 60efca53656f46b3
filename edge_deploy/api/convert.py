"""The conversion: capture once, then for every target and precision lower, read back, compare, write."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters import verify
from converters.capture import capture, run_float
from converters.contracts import Captured, Lowered, LowerRequest
from converters.cortex_m import CORES
from converters.delegates import VULKAN
from converters.recommender.resumable import read_progress
from converters.samples import random_samples, spool
from converters.tflite.metadata import with_metadata
from edge_deploy.api.calibration import serious_findings
from edge_deploy.api.convert_cortex_m import convert_cortex_m
from edge_deploy.api.convert_integer import convert_integer, is_integer_file
from edge_deploy.api.convert_vulkan import convert_vulkan
from edge_deploy.api.features import WITHOUT_FEATURES, describe_features, write_feature_files
from edge_deploy.api.host_code import write_host_code
from edge_deploy.api.judge import judge
from edge_deploy.api.labels import check_labels
from edge_deploy.api.manifest import manifest_of
from edge_deploy.api.placement import with_placement
from edge_deploy.api.preprocessing import Pixels, known_pixels
from edge_deploy.api.request import ConvertRequest, folder_name
from edge_deploy.api.value_ranges import refuse_unusable_ranges
from edge_deploy.api.workers import Workers
from edge_deploy.core.artifact import MANIFEST, Artifact, Verification
from edge_deploy.core.child import Child
from edge_deploy.core.dataset import Dataset, check_samples, dataset_digest, refuse_overlap, remembered
from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import FeatureSpec
from edge_deploy.core.progress import Growth
from edge_deploy.core.publish import published_folder
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.serde import write_json

__all__ = ["Conversion", "convert", "refuse_foreign_folder"]

RANDOM_SAMPLES = 64
PROGRESS_S = 2.0  # between two looks at a growing file
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What `convert` wrote: the folder, one artifact for each pair, and the report."""

    folder: Path
    artifacts: tuple[Artifact, ...]
    report: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """Samples on disk with the float model's answers to them."""

    feeds: Path
    answers: Path
    labels: np.ndarray
    digest: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calibration:
    """Calibration samples on disk, and what must be said of them."""

    feeds: Path
    labels: np.ndarray
    digest: str
    samples: int
    notes: tuple[str, ...] = ()

    @property
    def labels_file(self) -> Path:
        """The labels beside the samples."""
        return self.feeds.with_name("calibration_labels.npy")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A target and a precision whose lowering has begun."""

    target: str
    spec: QuantSpec
    folder: Path
    lowered: Future[Lowered]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What all pairs of one conversion share."""

    request: ConvertRequest
    captured: Captured
    calibration: _Calibration | None
    evidence: _Evidence
    features: FeatureSpec | None
    pixels: Pixels | None


def convert(request: ConvertRequest, *, progress: Progress = lambda stage: None) -> Conversion:
    """Convert, verify and write everything `request` asks for; the folder appears in one rename or not at all.

    Args:
        progress: Called with the name of each stage as it begins.

    Raises:
        BadInput: The model, the data or an option is not what it must be.
        Unsupported: Layers that cannot become what was asked, by name.
        ToolchainError: A third-party converter or runtime failed.
        VerificationFailed: A written file does not compute what its source computes.
    """
    refuse_foreign_folder(request.out, force=request.force)
    if is_integer_file(request):
        with published_folder(request.out, force=request.force) as partial:
            artifact = convert_integer(request, partial, progress=progress)
            progress("report")
            _write_report(partial)
        return Conversion(folder=request.out, artifacts=(artifact,), report=request.out / "report.html")
    if request.delegate == VULKAN or request.delegate in CORES:
        write = convert_vulkan if request.delegate == VULKAN else convert_cortex_m
        with published_folder(request.out, force=request.force) as partial:
            written = write(request, partial, progress=progress)
            progress("report")
            _write_report(partial)
        return Conversion(folder=request.out, artifacts=written, report=request.out / "report.html")
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch, Workers(request) as workers:
        work = Path(scratch)
        progress(f"capture {request.capture.source}")
        captured = capture(request.capture, _new(work / "captured"), child=workers.source)
        _refuse_missing_calibration(request, captured)
        check_labels(request.labels, captured.outputs)
        calibration_set, evaluation_set = _open_data(request, captured, progress)
        pixels = known_pixels(evaluation_set, calibration_set)
        calibration = _calibration(calibration_set, captured, work)
        evidence = _evidence(calibration_set, evaluation_set, calibration, captured, work)
        if calibration is not None:
            judged_on = evidence.feeds if evaluation_set is not None else None
            refuse_unusable_ranges(calibration.feeds, judged_on, captured.inputs)
        # The workers end before the folder vanishes, so that none of them writes into it any more.
        with _tidied(request.out), published_folder(request.out, force=request.force) as partial, workers:
            pairs: tuple[_Pair, ...] = ()
            if not workers.is_frugal:
                pairs = _begin(request, captured, calibration, partial, workers)
            progress("run the float model")
            run_float(captured, evidence.feeds, evidence.answers, child=workers.source)
            if calibration is not None and any(spec.needs_ranges for spec in request.specs):
                progress("check the calibration")
                notes = serious_findings(captured, calibration.feeds, child=workers.source)
                calibration = replace(calibration, notes=notes)
            features = describe_features(
                captured,
                request.features,
                feeds=evidence.feeds,
                answers=evidence.answers,
                work=work,
                child=workers.source,
            )
            workers.end(workers.source)
            job = _Job(
                request=request,
                captured=captured,
                calibration=calibration,
                evidence=evidence,
                features=features,
                pixels=pixels,
            )
            if workers.is_frugal:
                artifacts = _one_after_another(job, partial, workers, progress)
            else:
                artifacts = tuple(
                    artifact
                    for target in request.targets
                    for artifact in _finish(job, target, pairs, workers, progress)
                )
            progress("report")
            _write_report(partial)
    return Conversion(folder=request.out, artifacts=artifacts, report=request.out / "report.html")


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def refuse_foreign_folder(out: Path, *, force: bool) -> None:
    """Refuse an existing folder without `force`; with it, one that holds other things than what we write.

    Raises:
        BadInput: `out` must not be replaced.
    """
    if not out.exists():
        return
    if not force:
        raise BadInput(f"{out}: exists already; choose another --out or pass --force to replace it.")
    if not _is_ours(out):
        raise BadInput(f"{out}: holds other things than our artifacts; --force replaces only folders we wrote.")


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds reports, artifacts and folders of them, and nothing else."""
    if not folder.is_dir():
        return False
    return all(
        entry.name == "report.html" or (entry / MANIFEST).is_file() or _is_ours(entry) for entry in folder.iterdir()
    )


def _refuse_missing_calibration(request: ConvertRequest, captured: Captured) -> None:
    if request.calibrate is not None:
        return
    hybrid = captured.kind == "recommender" and all(spec.for_device == "phone" for spec in request.specs)
    needs = [spec.name for spec in request.specs if spec.needs_ranges]
    if needs and not hybrid:
        raise BadInput(
            f"--precision {', '.join(needs)}: activations are quantized with ranges seen on real inputs; "
            "pass --calibrate with an npz or a data set description of some hundred samples."
        )


def _open_data(
    request: ConvertRequest, captured: Captured, progress: Progress
) -> tuple[Dataset | None, Dataset | None]:
    from edge_deploy.zoo.datasets import open_dataset

    progress("check the data")
    found: list[Dataset | None] = []
    for path, limit in ((request.calibrate, request.calibrate_limit), (request.evaluate, request.evaluate_limit)):
        dataset = None
        if path is not None:
            dataset = remembered(open_dataset(path, inputs=captured.inputs, limit=limit))
            check_samples(dataset, captured.inputs)
        found.append(dataset)
    calibration, evaluation = found
    if calibration is not None and evaluation is not None:
        refuse_overlap(calibration, evaluation)
    return calibration, evaluation


def _calibration(dataset: Dataset | None, captured: Captured, work: Path) -> _Calibration | None:
    if dataset is None:
        return None
    feeds = work / "calibration.npz"
    labels = spool(dataset, len(dataset), captured.inputs, feeds)
    np.save(work / "calibration_labels.npy", labels)
    return _Calibration(feeds=feeds, labels=labels, digest=dataset_digest(dataset), samples=len(dataset))


def _evidence(
    calibration_set: Dataset | None,
    evaluation: Dataset | None,
    calibration: _Calibration | None,
    captured: Captured,
    work: Path,
) -> _Evidence:
    """What artifacts are compared on; the answers come later."""
    feeds, answers, note = work / "feeds.npz", work / "answers.npz", ""
    if evaluation is not None:
        labels, digest = spool(evaluation, len(evaluation), captured.inputs, feeds), dataset_digest(evaluation)
    elif calibration_set is not None and calibration is not None:
        feeds, labels, digest = calibration.feeds, calibration.labels, calibration.digest
        note = "compared on the calibration samples: no --eval was given"
    else:
        made = random_samples(captured.inputs, RANDOM_SAMPLES)
        labels, digest = spool(made, len(made), captured.inputs, feeds), dataset_digest(made)
        note = "compared on seeded random inputs: no data was given"
    return _Evidence(feeds=feeds, answers=answers, labels=labels, digest=digest, note=note)


def _begin(
    request: ConvertRequest,
    captured: Captured,
    calibration: _Calibration | None,
    partial: Path,
    workers: Workers,
    targets: tuple[str, ...] | None = None,
) -> tuple[_Pair, ...]:
    """Let the lowering of all pairs begin, one after another."""
    pairs = []
    for target in request.targets if targets is None else targets:
        for spec in request.specs:
            folder = _new(partial / folder_name(target, spec))
            feeds = calibration.feeds if calibration is not None else None
            labels = calibration.labels_file if calibration is not None else None
            wanted = LowerRequest(
                captured=captured,
                spec=spec,
                folder=folder,
                calibration=feeds,
                labels=labels,
                resume=_staging(request.out) / folder.name if captured.is_streamed else None,
            )
            pairs.append(_Pair(target=target, spec=spec, folder=folder, lowered=workers.lower(target, wanted)))
    return tuple(pairs)


def _staging(out: Path) -> Path:
    """Where large files grow; it outlives a process that was ended, and the next conversion to `out` goes on there."""
    return out.absolute().with_name(f".{out.name}.resume")


@contextmanager
def _tidied(out: Path) -> Iterator[None]:
    """Take the staging folder away behind the block, unless a file in it waits to be finished by another try."""
    try:
        yield
    finally:
        staging = _staging(out)
        if not any(staging.rglob("*.part")):
            shutil.rmtree(staging, ignore_errors=True)


def _one_after_another(job: _Job, partial: Path, workers: Workers, progress: Progress) -> tuple[Artifact, ...]:
    """Lower, end the toolchain, prove; only then the next target: no two of them are in memory at a time."""
    artifacts: list[Artifact] = []
    for target in job.request.targets:
        pairs = _begin(job.request, job.captured, job.calibration, partial, workers, (target,))
        progress(f"{target}: lower to {', '.join(pair.spec.name for pair in pairs)}")
        for pair in pairs:
            _await(pair, _staging(job.request.out) / pair.folder.name, progress)
        workers.end_toolchains()
        for pair in pairs:
            runtime = workers.runtime(target)
            artifact = _described(job, pair, pair.lowered.result())
            verified = _proven(job, pair, artifact, runtime, progress)
            workers.end(runtime)
            artifacts.append(_placed(pair, verified))
    return tuple(artifacts)


def _await(pair: _Pair, staging: Path, progress: Progress) -> None:
    """Wait for a lowering, and say how far its file has grown."""
    said = ""
    while not wait([pair.lowered], timeout=PROGRESS_S).done:
        found = read_progress(staging)
        if found and found != said:
            said = found
            progress(Growth(f"{pair.folder.name}: {found}"))


def _finish(
    job: _Job, target: str, pairs: tuple[_Pair, ...], workers: Workers, progress: Progress
) -> tuple[Artifact, ...]:
    """Prove what was lowered for one target; its runtime is loaded meanwhile."""
    mine = [pair for pair in pairs if pair.target == target]
    progress(f"{target}: lower to {', '.join(pair.spec.name for pair in mine)}")
    runtime = workers.runtime(target)
    artifacts = tuple(_prove(job, pair, pair.lowered.result(), runtime, progress) for pair in mine)
    workers.end(runtime)
    return artifacts


def _prove(job: _Job, pair: _Pair, lowered: Lowered, runtime: Child, progress: Progress) -> Artifact:
    """Describe what was written, run it against its source, and leave both as the manifest."""
    return _placed(pair, _proven(job, pair, _described(job, pair, lowered), runtime, progress))


def _described(job: _Job, pair: _Pair, lowered: Lowered) -> Artifact:
    target, folder, features, pixels = pair.target, pair.folder, job.features, job.pixels
    artifact = _artifact(job.request, job.captured, target, pair.spec, job.calibration, lowered)
    if pixels is not None:
        artifact = pixels.described(artifact)
    if target == "tflite":
        artifact = with_metadata(artifact, folder)
    if features is not None:
        notes = () if job.request.features is not None else (WITHOUT_FEATURES,)
        files = (*artifact.files, *write_feature_files(features, folder))
        artifact = replace(artifact, files=files, warnings=(*artifact.warnings, *notes))
    raw = features if job.request.features is not None else None  # without a description there are no raw rows
    artifact = write_host_code(artifact, folder, raw)
    write_json(artifact, folder / MANIFEST)
    return artifact


def _proven(job: _Job, pair: _Pair, artifact: Artifact, runtime: Child, progress: Progress) -> Artifact:
    progress(f"{pair.folder.name}: verify")
    return replace(artifact, verification=_verify(job.request, pair.folder, artifact, job.evidence, runtime))


def _placed(pair: _Pair, verified: Artifact) -> Artifact:
    if pair.target == "tflite":
        verified = with_placement(verified, pair.folder)
    write_json(verified, pair.folder / MANIFEST)
    return verified


def _artifact(
    request: ConvertRequest,
    captured: Captured,
    target: str,
    spec: QuantSpec,
    calibration: _Calibration | None,
    lowered: Lowered,
) -> Artifact:
    used = calibration if spec.needs_ranges else None
    signatures = lowered.signatures
    if request.labels:
        signatures = tuple(
            replace(each, outputs=(replace(each.outputs[0], labels=request.labels), *each.outputs[1:]))
            for each in signatures
        )
    return manifest_of(
        captured,
        lowered,
        source=request.capture.source,
        target=target,
        spec=spec,
        notes=used.notes if used else (),
        signatures=signatures,
        calibration_digest=used.digest if used else "",
        calibration_samples=used.samples if used else 0,
    )


def _verify(
    request: ConvertRequest, folder: Path, artifact: Artifact, evidence: _Evidence, runtime: Child
) -> Verification:
    from runtimes.formats.facts import read_facts

    verify.check_outcomes(artifact.outcomes, read_facts(folder / artifact.model_file.path))
    scores = folder / ".scores.npy"
    comparisons = verify.compare(
        folder,
        runs=verify.all_runs(artifact),
        feeds=evidence.feeds,
        answers=evidence.answers,
        scores=scores,
        child=runtime,
    )
    with np.load(evidence.answers, allow_pickle=False) as archive:
        source_scores = archive[artifact.source_outputs[0].name]
    artifact_scores = np.load(scores, allow_pickle=False)
    scores.unlink()
    result = judge(
        comparisons,
        evidence.labels,
        source_scores,
        artifact_scores,
        meaning=artifact.source_outputs[0].meaning,
        max_drop=request.max_drop,
        strict=request.strict,
    )
    notes = tuple(note for note in (evidence.note, *result.notes) if note)
    return replace(result, evaluation_digest=evidence.digest, notes=notes)


def _write_report(folder: Path) -> None:
    from edge_deploy.report import write_report

    write_report(folder, folder / "report.html")
