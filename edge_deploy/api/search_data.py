"""Samples of a search on disk: those it decides by, and those it has never seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.capture import run_float
from converters.contracts import Captured
from converters.debugger.answers import metric_of
from converters.samples import save_arrays, spool
from edge_deploy.core.dataset import check_samples
from edge_deploy.core.digest import sample_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import find_description

__all__ = ["Part", "split_samples"]

FEWEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some labelled samples.

    Attributes:
        feeds: npz with one array for each input and, as `y`, the labels: what convert takes as --eval.
        answers: npz of the float model's outputs.
        metric: "accuracy" or "auc".
        digest: Of the samples, whatever their order.
    """

    feeds: Path
    answers: Path
    labels: np.ndarray
    metric: str
    digest: str


def split_samples(
    captured: Captured, evaluate: Path, confirm: Path | None, limit: int | None, work: Path
) -> tuple[Part, Part]:
    """Samples to search on, and others to confirm on: `confirm`, or the half of `evaluate` with the larger digests.

    Raises:
        BadInput: Samples do not fit the model, have no labels, are too few, or stand in both sets.
    """
    arrays, labels = _spooled(captured, evaluate, limit, work / "evaluate.npz")
    digests = _digests(arrays)
    if confirm is not None:
        others, other_labels = _spooled(captured, confirm, limit, work / "confirm.npz")
        shared = set(digests) & set(_digests(others))
        if shared:
            raise BadInput(
                f"--confirm {confirm}: {len(shared)} of its samples stand in {evaluate} too; a search must be "
                "confirmed on samples it has not seen."
            )
        return _part(captured, arrays, labels, work, "search"), _part(
            captured, others, other_labels, work, "confirmation"
        )
    order = sorted(range(len(labels)), key=lambda index: digests[index])
    middle = len(order) // 2
    while 0 < middle < len(order) and digests[order[middle]] == digests[order[middle - 1]]:
        middle += 1  # copies of one sample stay on one side
    halves = np.array(order[:middle], int), np.array(order[middle:], int)
    if min(map(len, halves)) < FEWEST:
        raise BadInput(f"--eval {evaluate}: {len(order)} samples: half of them must be at least {FEWEST}.")
    first, second = (
        _part(captured, {name: array[rows] for name, array in arrays.items()}, labels[rows], work, name)
        for rows, name in zip(halves, ("search", "confirmation"), strict=True)
    )
    return first, second


def _spooled(
    captured: Captured, path: Path, limit: int | None, place: Path
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    dataset = open_dataset(find_description(path), inputs=captured.inputs, limit=limit)
    check_samples(dataset, captured.inputs)
    labels = spool(dataset, len(dataset), captured.inputs, place)
    if not np.isfinite(labels).all():
        raise BadInput(f"{path}: {int((~np.isfinite(labels)).sum())} samples have no label; --max-drop needs them.")
    with np.load(place, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}, labels


def _digests(arrays: dict[str, np.ndarray]) -> list[str]:
    count = len(next(iter(arrays.values())))
    return [sample_sha256({name: array[index] for name, array in arrays.items()}) for index in range(count)]


def _part(captured: Captured, arrays: dict[str, np.ndarray], labels: np.ndarray, work: Path, name: str) -> Part:
    feeds, answers = work / f"{name}.npz", work / f"{name}.answers.npz"
    save_arrays({**arrays, "y": labels}, feeds)
    run_float(captured, feeds, answers)
    with np.load(answers, allow_pickle=False) as archive:
        want = archive[captured.outputs[0].name]
    metric = metric_of(labels, want.reshape(len(want), -1))
    if not metric:
        raise BadInput(
            f"labels from {labels.min():g} to {labels.max():g}: must be classes of the model's output, or 0 and 1 "
            "(both in each part) for a single output."
        )
    digest = sample_sha256({"digests": np.array(sorted(_digests(arrays)))})
    return Part(feeds=feeds, answers=answers, labels=labels, metric=metric, digest=digest)
