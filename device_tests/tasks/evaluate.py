"""Run a task's samples through a model on a device, and measure how good its answers are."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_tests.benchmark_turn import Turn, ask
from device_tests.contracts import Transport
from device_tests.tasks.data import TaskSamples
from device_tests.tasks.feeds import Feed, feed_of, scores_of
from device_tests.tasks.models import TaskModelFile
from device_tests.tasks.quality import Quality, measure_quality
from device_tests.tasks.task import Task
from edge_deploy.core.errors import BadInput

__all__ = ["Evaluation", "check_classes", "evaluate"]

CHUNK_CALLS = 4096
CHUNK_BYTES = 32_000_000
INFER_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How good a model is on a device.

    Attributes:
        scores: One row for each item.
        told: What the device told beside the outputs, of the last chunk, e.g. instructions of one inference.
        inferences: How many were run.
    """

    quality: Quality
    scores: np.ndarray
    told: Mapping[str, Any]
    inferences: int
    note: str = ""


def check_classes(task: Task, model: TaskModelFile, samples: TaskSamples) -> None:
    """Refuse labels of other classes than the model gives.

    Raises:
        BadInput: Says both numbers.
    """
    if task.score != "output" or not model.signature.outputs:
        return
    given = int(np.prod([max(size, 1) for size in model.signature.outputs[0].shape[1:]]))
    if samples.classes and given not in {samples.classes, 1 if samples.classes == 2 else samples.classes}:
        raise BadInput(
            f"{model.path}: gives {given} classes, {samples.folder / task.data.labels} speaks of {samples.classes}: "
            f"these are the labels of another task, or this is no model for {task.title}."
        )


def evaluate(
    task: Task,
    samples: TaskSamples,
    model: TaskModelFile,
    turn: Turn,
    transport: Transport,
    *,
    folder: str,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Push samples in chunks, let the loaded model infer, pull its outputs, score them.

    Args:
        turn: The model, loaded by the worker at the other end.
        folder: Name of a folder of the run on the device.

    Raises:
        BadInput: The samples do not fit the model.
        DeviceError: The device failed or vanished.
    """
    say = progress or (lambda line: None)
    check_classes(task, model, samples)
    feed = feed_of(task, model.signature, model.source)
    output = model.signature.outputs[0]
    scores: list[np.ndarray] = []
    told: Mapping[str, Any] = {}
    inferences = 0
    for first, counts, arrays, reals in _chunks(feed, samples):
        say(f"{model.name} {model.precision}: {task.title}, item {first + len(counts)} of {len(samples.names)}")
        outputs, told = _infer(turn, transport, arrays, folder=folder)
        if output.name not in outputs:
            raise BadInput(f"{model.path}: the device gave outputs {', '.join(outputs)}, not {output.name}.")
        each = scores_of(task, outputs[output.name], output, reals)
        inferences += len(each)
        ends = np.cumsum(counts)[:-1]
        scores += [part.mean(axis=0) for part in np.split(each, ends)]
    stacked = np.stack(scores)
    quality = measure_quality(task, samples.names, samples.labels, stacked)
    return Evaluation(quality=quality, scores=stacked, told=told, inferences=inferences, note=feed.note)


def _chunks(feed: Feed, samples: TaskSamples) -> Iterator[tuple[int, list[int], dict[str, np.ndarray], np.ndarray]]:
    """Whole items, so many that a chunk stays small: place of the first, samples of each, arrays, real values."""
    first, size = 0, 0
    counts: list[int] = []
    parts: list[dict[str, np.ndarray]] = []
    reals: list[np.ndarray] = []
    for index in range(len(samples.names)):
        arrays, real = feed.arrays(samples.rows(index))
        counts.append(len(real))
        parts.append(arrays)
        reals.append(real)
        size += sum(array.nbytes for array in arrays.values())
        if sum(counts) >= CHUNK_CALLS or size >= CHUNK_BYTES or index == len(samples.names) - 1:
            yield first, counts, {n: np.concatenate([part[n] for part in parts]) for n in arrays}, np.concatenate(reals)
            first, size, counts, parts, reals = index + 1, 0, [], [], []


def _infer(
    turn: Turn, transport: Transport, arrays: Mapping[str, np.ndarray], *, folder: str
) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    """One chunk; its files are new ones, because pushed may mean linked."""
    with tempfile.TemporaryDirectory(prefix="edge-deploy-task-") as scratch:
        given, got = Path(scratch, "in.npz"), Path(scratch, "out.npz")
        with given.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # names of inputs
        there = transport.push(given, f"{folder}/in.npz")
        beside = there.removesuffix("in.npz") + "out.npz"
        told = ask(turn, {"do": "infer", "inputs": there, "outputs": beside}, timeout_s=INFER_TIMEOUT_S)
        transport.pull(f"{folder}/out.npz", got)
        with np.load(got, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}, told
