"""An artifact with its float model and samples, opened once, and artifacts converted again from the same source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters import verify
from converters.capture import capture, run_float
from converters.contracts import Captured, LowerRequest
from converters.debugger.answers import likeness, metric_of
from converters.debugger.diagnose import Opened
from converters.debugger.finding import Likeness
from converters.lower import lower
from converters.samples import save_arrays, spool
from edge_deploy.api.debug_request import DebugRequest
from edge_deploy.core.artifact import Artifact
from edge_deploy.core.dataset import Dataset, check_samples, dataset_digest
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import find_description
from runtimes.folder import check_files, read_artifact

__all__ = ["Case", "measured_answers", "open_case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What every step of debugging needs.

    Attributes:
        feeds: npz of the samples, one array [samples, ...] for each source input.
        answers: npz of the float model's outputs to them, from its own framework.
        labels: [samples]; NaN where there is none.
        calibration: npz of the calibration samples; None where none were named.
        notes: What the reader must know of the data.
    """

    request: DebugRequest
    artifact: Artifact
    captured: Captured
    feeds: Path
    answers: Path
    labels: np.ndarray
    work: Path
    calibration: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def needs_calibration(self) -> bool:
        """Whether a new conversion needs samples for ranges, and none were named."""
        hybrid = self.captured.kind == "recommender" and self.artifact.spec.for_device == "phone"
        return self.calibration is None and not hybrid

    def lowered(self, spec: QuantSpec, name: str) -> Opened:
        """The source lowered again in the artifact's format, not verified: for looking into.

        Raises:
            Unsupported: A layer cannot become what `spec` asks.
        """
        folder = self.work / name
        folder.mkdir()
        made = lower(
            self.artifact.format,
            LowerRequest(captured=self.captured, spec=spec, folder=folder, calibration=self.calibration),
        )
        return Opened(name=name, target=self.artifact.format, folder=folder, spec=spec, outcomes=made.outcomes)

    def part(self, rows: slice, name: str) -> Case:
        """The same with some of the samples."""
        places = []
        for path in (self.feeds, self.answers):
            with np.load(path, allow_pickle=False) as archive:
                arrays = {key: archive[key][rows] for key in archive.files}
            places.append(self.work / f"{name}.{path.name}")
            save_arrays(arrays, places[-1])
        return replace(self, feeds=places[0], answers=places[1], labels=self.labels[rows])

    def measured(self, folder: Path) -> Likeness:
        """Answers of an artifact as its runtime gives them, against the float model's."""
        with np.load(self.answers, allow_pickle=False) as archive:
            want = _rows(archive[self.captured.outputs[0].name])
        got = _rows(measured_answers(folder, feeds=self.feeds, answers=self.answers, work=self.work))
        return likeness(
            want, got, self.labels, metric=metric_of(self.labels, want), meaning=self.captured.outputs[0].meaning
        )


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).astype(np.float64)


def open_case(request: DebugRequest, work: Path) -> Case:
    """Read the artifact, capture its source, and run the float model on the samples.

    Args:
        work: Empty folder.

    Raises:
        BadInput: Not an artifact, or a source or samples that do not fit it.
        Unsupported: An artifact whose layers cannot be looked at.
    """
    artifact = read_artifact(request.folder)
    _refuse(request.folder, artifact)
    known = [outcome.layer for outcome in artifact.outcomes if 0 < outcome.weight_bits < 32]
    wrong = [name for name in request.prove if name not in known]
    if wrong:
        raise BadInput(
            f"--prove {', '.join(wrong)}: not a layer with quantized weights; those are {', '.join(sorted(known))}."
        )
    check_files(request.folder, artifact)
    (work / "captured").mkdir()
    captured = capture(replace(request.source, batches=_batches(artifact)), work / "captured")
    if tuple(info.name for info in captured.inputs) != tuple(info.name for info in artifact.source_inputs):
        raise BadInput(f"{request.source.source}: has other inputs than the source of {request.folder}.")
    feeds, answers = work / "feeds.npz", work / "answers.npz"
    samples = _opened(request.data, captured, request.limit)
    labels = spool(samples, len(samples), captured.inputs, feeds)
    run_float(captured, feeds, answers)
    calibration, notes = None, []
    if dataset_digest(samples) == artifact.calibration_digest:
        notes.append("these are the samples the artifact was calibrated on: errors on others may be larger")
    if request.calibrate is not None:
        calibration = work / "calibration.npz"
        ranges = _opened(request.calibrate, captured, request.calibrate_limit)
        spool(ranges, len(ranges), captured.inputs, calibration)
        if artifact.calibration_digest and dataset_digest(ranges) != artifact.calibration_digest:
            notes.append(f"{request.calibrate}: not the samples that the artifact was calibrated with")
    return Case(
        request=request,
        artifact=artifact,
        captured=captured,
        feeds=feeds,
        answers=answers,
        labels=labels,
        work=work,
        calibration=calibration,
        notes=tuple(notes),
    )


def measured_answers(folder: Path, *, feeds: Path, answers: Path, work: Path) -> np.ndarray:
    """The first output [samples, ...] of an artifact at one thread, in the source's terms.

    Raises:
        ToolchainError: The runtime died.
    """
    artifact = read_artifact(folder)
    scores = work / "scores.npy"
    runs = (verify.all_runs(artifact)[0],)
    verify.compare(folder, runs=runs, feeds=feeds, answers=answers, scores=scores)
    found: np.ndarray = np.load(scores, allow_pickle=False)
    scores.unlink()
    return found


def _opened(path: Path, captured: Captured, limit: int | None) -> Dataset:
    dataset = open_dataset(find_description(path), inputs=captured.inputs, limit=limit)
    check_samples(dataset, captured.inputs)
    return dataset


def _batches(artifact: Artifact) -> tuple[int, ...]:
    sizes = [max(signature.inputs[0].shape[0], 1) for signature in artifact.signatures if signature.inputs[0].shape]
    return tuple(dict.fromkeys(sizes)) or (1,)


def _refuse(folder: Path, artifact: Artifact) -> None:
    if artifact.format not in ("tflite", "executorch"):
        raise Unsupported(
            f"{folder}: layers of {artifact.format} projects cannot be looked at; debug the .tflite artifact of the "
            "same precision, whose reference kernels they equal."
        )
    if artifact.spec.is_float:
        raise Unsupported(f"{folder}: is float32: nothing in it is quantized; name an artifact of another precision.")
    if artifact.split is not None:
        raise Unsupported(f"{folder}: is one half of a cut; debug the whole.")
