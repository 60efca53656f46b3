"""Run a float model over stacked samples, from an npz of inputs to an npz of outputs, in batches."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["BATCH", "run_feeds"]

BATCH = 64


def run_feeds(
    call: Callable[[list[np.ndarray]], list[np.ndarray]],
    *,
    inputs: tuple[TensorInfo, ...],
    outputs: tuple[TensorInfo, ...],
    feeds: Path,
    answers: Path,
    largest_batch: int = BATCH,
) -> None:
    """Call the model batch by batch.

    Args:
        call: Arrays of one batch in call order → outputs in order.
        inputs: A fixed batch size in dimension 0 is kept: the last batch is filled up by its last sample.
        feeds: npz with one array per input, samples stacked on axis 0.
        answers: The npz to write.
        largest_batch: Bound of a dynamic batch.

    Raises:
        BadInput: An input is missing, or has another shape or type than the model's.
    """
    arrays = _read(feeds, inputs)
    count = len(arrays[0])
    fixed = inputs[0].shape[0]
    step = fixed if fixed > 0 else min(BATCH, largest_batch)
    parts: list[list[np.ndarray]] = [[] for _ in outputs]
    for start in range(0, count, step):
        batch = [array[start : start + step] for array in arrays]
        have = len(batch[0])
        if fixed > 0 and have < fixed:
            batch = [np.concatenate([array, np.repeat(array[-1:], fixed - have, axis=0)]) for array in batch]
        for part, values in zip(parts, call(batch), strict=True):
            part.append(np.asarray(values)[:have])
    np.savez(answers, **{info.name: np.concatenate(part) for info, part in zip(outputs, parts, strict=True)})  # type: ignore[arg-type]  # numpy's stub mistakes the names for its own flag


def _read(feeds: Path, inputs: tuple[TensorInfo, ...]) -> list[np.ndarray]:
    try:
        with np.load(feeds, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(f"{feeds}: cannot be read as npz ({error}).") from error
    problems, arrays = [], []
    for info in inputs:
        array = held.get(info.name)
        if array is None:
            problems.append(f"{feeds}: input {info.name}: missing; the file holds {', '.join(held) or 'nothing'}.")
        elif array.shape[1:] != info.shape[1:]:
            problems.append(
                f"{feeds}: input {info.name}: samples of shape {array.shape[1:]}: must be {info.shape[1:]}."
            )
        elif not np.can_cast(array.dtype, info.dtype, casting="same_kind"):
            problems.append(f"{feeds}: input {info.name}: of type {array.dtype}: must be {info.dtype}.")
        else:
            arrays.append(array.astype(info.dtype, copy=False))
    lengths = {len(array) for array in arrays}
    if not problems and (len(lengths) != 1 or 0 in lengths):
        problems.append(f"{feeds}: {sorted(lengths)} samples by input: must be equally many, at least one.")
    if problems:
        raise BadInput(*problems)
    return arrays
