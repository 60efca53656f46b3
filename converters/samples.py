"""Samples on disk, in the shape that child processes read them: one npz, one stacked array for each input."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from edge_deploy.core.dataset import Sample
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["random_samples", "save_arrays", "spool"]

UNBOUNDED_ID_LIMIT = 2  # rows that any table has


def spool(samples: Iterable[Sample], count: int, inputs: tuple[TensorInfo, ...], path: Path) -> np.ndarray:
    """Write `count` samples to the npz `path` without holding them in memory, and return their labels.

    Returns:
        float64 [count]; NaN where a sample has no label.

    Raises:
        BadInput: The data set ends early.
    """
    folder = path.with_suffix(".arrays")
    folder.mkdir()
    labels = np.full(count, np.nan)
    arrays: dict[str, np.memmap] = {}
    written = 0
    for index, sample in enumerate(samples):
        if index == count:
            break
        for info in inputs:
            values = np.asarray(sample.inputs[info.name])
            if info.name not in arrays:
                arrays[info.name] = np.lib.format.open_memmap(
                    folder / f"{len(arrays)}.npy", mode="w+", dtype=info.dtype, shape=(count, *values.shape)
                )
            arrays[info.name][index] = values
        if sample.label is not None:
            labels[index] = sample.label
        written = index + 1
    if written != count:
        raise BadInput(f"{path.stem} data: {written} samples came, {count} were announced.")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for number, (name, array) in enumerate(arrays.items()):
            array.flush()
            archive.write(folder / f"{number}.npy", f"{name}.npy")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return labels


def save_arrays(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write an npz whose arrays may carry any name, also those that `np.savez` keeps for its own arguments."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)


def random_samples(inputs: tuple[TensorInfo, ...], count: int, *, seed: int = 0) -> list[Sample]:
    """Seeded inputs for a comparison where the user gave no data: normal values, ids within their tables."""
    generator = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        arrays = {}
        for info in inputs:
            shape = tuple(max(size, 1) for size in info.shape[1:])
            if info.dtype.startswith("float"):
                arrays[info.name] = generator.standard_normal(shape).astype(info.dtype)
            else:
                bounds = np.asarray(info.id_bounds or (UNBOUNDED_ID_LIMIT,))
                high = bounds if len(bounds) > 1 else int(bounds[0])
                arrays[info.name] = generator.integers(0, high, size=shape).astype(info.dtype)
        samples.append(Sample(inputs=arrays))
    return samples
