"""Samples in the terms of the source model, streamed: what calibrates and evaluates a conversion."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from edge_deploy.core.digest import sample_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = [
    "Dataset",
    "KnowsPixels",
    "Sample",
    "batches",
    "check_samples",
    "dataset_digest",
    "refuse_overlap",
    "remembered",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample: arrays by input name, without a batch dimension, and its label (None when there is none)."""

    inputs: Mapping[str, np.ndarray]
    label: float | None = None


class Dataset(Protocol):
    """A named, re-iterable stream of samples; every iteration gives the same ones in the same order."""

    @property
    def name(self) -> str:
        """Where it comes from, for messages."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...


@runtime_checkable
class KnowsPixels(Protocol):
    """A data set that knows how stored pixels become the model's input: (pixel - mean) / std, each per channel.

    Both are empty where samples are no images.
    """

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """In the terms of the stored values, e.g. 0 to 255."""

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """As long as `pixel_mean`."""


def batches(samples: Iterable[Sample], size: int) -> Iterator[dict[str, np.ndarray]]:
    """Inputs stacked along a new first dimension; the last batch may be shorter."""
    waiting: list[Sample] = []
    for sample in samples:
        waiting.append(sample)
        if len(waiting) == size:
            yield _stack(waiting)
            waiting = []
    if waiting:
        yield _stack(waiting)


def _stack(samples: list[Sample]) -> dict[str, np.ndarray]:
    return {name: np.stack([sample.inputs[name] for sample in samples]) for name in samples[0].inputs}


class _Remembered:
    """See `remembered`; other attributes are the data set's own."""

    def __init__(self, dataset: Dataset, most_bytes: int) -> None:
        self._dataset = dataset
        self._left = most_bytes
        self._samples: list[Sample] = []
        self._is_complete = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Sample]:
        if self._is_complete:
            yield from self._samples
            return
        self._samples.clear()
        left = self._left
        for sample in self._dataset:
            left -= sum(array.nbytes for array in sample.inputs.values())
            if left >= 0:
                self._samples.append(sample)
            else:
                self._samples.clear()
            yield sample
        self._is_complete = left >= 0


def remembered(dataset: Dataset, *, most_bytes: int = 256 << 20) -> Dataset:
    """The same data set, whose samples are decoded once where all of them together take at most `most_bytes`."""
    return _Remembered(dataset, most_bytes)  # type: ignore[return-value]  # its name comes from the data set


def dataset_digest(samples: Iterable[Sample]) -> str:
    """sha256 over the digests of all samples, whatever their order."""
    digest = hashlib.sha256()
    for line in sorted(sample_sha256(sample.inputs) for sample in samples):
        digest.update(line.encode())
    return digest.hexdigest()


def refuse_overlap(calibration: Dataset, evaluation: Dataset) -> None:
    """Refuse to judge a model on samples it was calibrated on.

    Raises:
        BadInput: At least one sample is in both.
    """
    seen = {sample_sha256(sample.inputs) for sample in calibration}
    shared = sum(sample_sha256(sample.inputs) in seen for sample in evaluation)
    if shared:
        raise BadInput(
            f"{evaluation.name}: {shared} of {len(evaluation)} evaluation samples also stand in {calibration.name}; "
            "a model must not be judged on its calibration data: take other samples."
        )


def check_samples(dataset: Dataset, inputs: tuple[TensorInfo, ...], *, limit: int | None = None) -> None:
    """Refuse samples that the model cannot take: names, shapes, types, values that are not finite, ids out of range.

    Args:
        limit: Look at that many samples only.

    Raises:
        BadInput: All kinds of problem at once, each with the first sample that shows it.
    """
    problems: dict[str, str] = {}
    for index, sample in enumerate(dataset):
        if limit is not None and index >= limit:
            break
        for key, text in _sample_problems(sample, inputs):
            problems.setdefault(key, f"{dataset.name}: sample {index}: {text}")
    if len(dataset) == 0:
        problems["empty"] = f"{dataset.name}: holds no sample."
    if problems:
        raise BadInput(*problems.values())


def _sample_problems(sample: Sample, inputs: tuple[TensorInfo, ...]) -> Iterator[tuple[str, str]]:
    wanted = {info.name: info for info in inputs}
    for name in sample.inputs:
        if name not in wanted:
            yield f"extra {name}", f"array {name!r}: the model has no such input; its inputs are {', '.join(wanted)}."
    for name, info in wanted.items():
        if name not in sample.inputs:
            yield f"missing {name}", f"input {name!r} is missing; found {', '.join(sample.inputs)}."
            continue
        array = sample.inputs[name]
        shape = info.shape[1:]
        if len(shape) != array.ndim or any(a not in (-1, b) for a, b in zip(shape, array.shape, strict=True)):
            yield f"shape {name}", f"input {name!r} has shape {array.shape}: must be {shape} (without the batch)."
        elif info.dtype.startswith("float"):
            if array.dtype.kind not in "fiu":
                yield f"type {name}", f"input {name!r} is {array.dtype}: must be numbers for {info.dtype}."
            elif array.dtype.kind == "f" and not np.isfinite(array).all():
                yield f"finite {name}", f"input {name!r} holds NaN or infinity."
        elif array.dtype.kind not in "iu":
            yield f"type {name}", f"input {name!r} is {array.dtype}: must be integers for {info.dtype}."
        elif info.id_bounds and array.size:
            bounds = np.asarray(info.id_bounds if len(info.id_bounds) > 1 else info.id_bounds[0])
            if (array < 0).any() or (array >= bounds).any():
                yield f"range {name}", f"input {name!r} holds ids outside its tables (rows: {info.id_bounds})."
