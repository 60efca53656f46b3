"""Verify a written artifact again: its files, its claims, its runtime, and its source where that is at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from converters import verify as compare_with
from converters.capture import capture, run_float
from converters.contracts import CaptureRequest
from converters.samples import random_samples, spool
from edge_deploy.api.judge import judge
from edge_deploy.api.verify_on_device import compare_on_device
from edge_deploy.core.artifact import Artifact, Verification
from edge_deploy.core.dataset import Dataset, check_samples, dataset_digest
from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.description import find_description
from runtimes.folder import check_files, read_artifact
from runtimes.formats.facts import read_facts

__all__ = ["verify"]

RANDOM_SAMPLES = 16


def verify(
    folder: Path | str,
    *,
    request: CaptureRequest | None = None,
    evaluate: Path | str | None = None,
    evaluate_limit: int | None = None,
    max_drop: float | None = None,
    strict: bool = False,
    public_key: Path | str | None = None,
    device: str = "host",
    progress: Callable[[str], None] = lambda stage: None,
) -> tuple[Artifact, Verification]:
    """Check digests, claims against bytes, and outputs at 1 and 2 threads.

    Args:
        folder: An artifact.
        request: The float model it came from; without it, 1 thread is compared with 2.
        evaluate: Samples to compare on; without them, seeded random inputs.
        public_key: PEM file of the Ed25519 key that must have signed the manifest.
        device: Where the artifact runs, e.g. "qemu:arm64-cortex-a76"; without a request its answers are compared with
            those that it gives on this machine.

    Raises:
        BadInput: A file is missing, damaged or not what the manifest says, or the manifest is not signed; or there is
            no such device.
        DeviceError: The device cannot be reached, or does not run the artifact.
        VerificationFailed: A claim is false, or outputs are garbage or worse than `max_drop`.
    """
    progress("check files")
    folder = Path(folder)
    artifact = read_artifact(folder, public_key=public_key)
    check_files(folder, artifact)
    compare_with.check_outcomes(artifact.outcomes, read_facts(folder / artifact.model_file.path))
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        work = Path(scratch)
        feeds, answers, scores = work / "feeds.npz", work / "answers.npz", work / "scores.npy"
        samples = find_description(evaluate) if evaluate is not None else None
        labels, digest, note = _feeds(artifact, samples, evaluate_limit, feeds)
        if request is not None:
            progress("run the float model")
            (work / "captured").mkdir()
            captured = capture(request, work / "captured")
            if tuple(info.name for info in captured.inputs) != tuple(info.name for info in artifact.source_inputs):
                raise BadInput(f"{request.source}: has other inputs than the source of {folder}.")
            run_float(captured, feeds, answers)
        first = artifact.signatures[0]
        progress("run the artifact")
        if request is None:
            compare_with.answer(folder, signature=first, feeds=feeds, answers=answers)
            here = "" if device == "host" else " on this machine"
            note += f"; compared with its own answers{here} at 1 thread: no source was given"
        runs = compare_with.all_runs(artifact)
        if device == "host":
            comparisons = compare_with.compare(folder, runs=runs, feeds=feeds, answers=answers, scores=scores)
        else:
            progress(f"run the artifact on {device}")
            comparisons = compare_on_device(
                folder,
                artifact,
                device=device,
                runs=runs,
                feeds=feeds,
                answers=answers,
                scores=scores,
                answers_are_its_own=request is None,
            )
        with np.load(answers, allow_pickle=False) as archive:
            source_scores = archive[artifact.source_outputs[0].name]
        result = judge(
            comparisons,
            labels,
            source_scores,
            np.load(scores, allow_pickle=False),
            meaning=artifact.source_outputs[0].meaning,
            max_drop=max_drop,
            strict=strict,
        )
    notes = tuple(text for text in (note.removeprefix("; "), *result.notes) if text)
    return artifact, Verification(
        comparisons=result.comparisons,
        differences=result.differences,
        verdict=result.verdict,
        evaluation_digest=digest,
        notes=notes,
    )


def _feeds(artifact: Artifact, evaluate: Path | None, limit: int | None, feeds: Path) -> tuple[np.ndarray, str, str]:
    from edge_deploy.zoo.datasets import open_dataset

    inputs = artifact.source_inputs
    if evaluate is None:
        samples = random_samples(inputs, RANDOM_SAMPLES)
        return spool(samples, len(samples), inputs, feeds), dataset_digest(samples), "seeded random inputs"
    dataset: Dataset = open_dataset(evaluate, inputs=inputs, limit=limit)
    check_samples(dataset, inputs)
    digest = dataset_digest(dataset)
    if digest == artifact.calibration_digest:
        raise BadInput(f"{evaluate}: these are the samples the artifact was calibrated on; take others.")
    return spool(dataset, len(dataset), inputs, feeds), digest, ""
