"""Stream calibration samples out of an npz file, in batches of the size that a program takes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["Samples", "calibration_batches"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Calibration samples on disk, and in how large batches a program takes them.

    Attributes:
        path: npz with one array for each input, samples on axis 0.
        batch: How many samples come at a time.
        is_fixed: The program takes no shorter batch, so that the last one is filled up.
    """

    path: Path
    inputs: tuple[TensorInfo, ...]
    batch: int
    is_fixed: bool = True

    @property
    def count(self) -> int:
        """How many there are.

        Raises:
            BadInput: An input is missing, or arrays differ in length.
        """
        with zipfile.ZipFile(self.path) as archive:
            return _streams(self.path, archive, self.inputs)[0].count

    def batches(self, *, most: int | None = None) -> Iterator[tuple[Any, ...]]:
        """Tensors in call order, read as they are needed.

        Args:
            most: That many samples at most, spread evenly over all; None for all.

        Raises:
            BadInput: An input is missing, or arrays differ in length.
        """
        return calibration_batches(self.path, self.inputs, self.batch, fill=self.is_fixed, most=most)


def calibration_batches(
    path: Path, inputs: Sequence[TensorInfo], batch: int, *, fill: bool = True, most: int | None = None
) -> Iterator[tuple[Any, ...]]:
    """Tensors in call order, `batch` samples at a time, read as they are needed.

    Args:
        fill: Fill the last batch up with samples from the beginning, for programs that take no shorter one.
        most: That many samples at most, spread evenly over all; None for all.

    Raises:
        BadInput: An input is missing, or arrays differ in length.
    """
    import torch

    with zipfile.ZipFile(path) as archive:
        streams = _streams(path, archive, inputs)
        first: list[np.ndarray] = []
        for places in _places(streams[0].count, batch, most):
            arrays = [stream.read(places) for stream in streams]
            if not first:
                first = arrays
            short = batch - len(arrays[0])
            if short and fill:
                arrays = [_filled(array, source, short) for array, source in zip(arrays, first, strict=True)]
            yield tuple(
                torch.from_numpy(np.ascontiguousarray(array, dtype=info.dtype))
                for array, info in zip(arrays, inputs, strict=True)
            )


def _streams(path: Path, archive: zipfile.ZipFile, inputs: Sequence[TensorInfo]) -> list[_Stream]:
    members = {name.removesuffix(".npy") for name in archive.namelist()}
    missing = [info.name for info in inputs if info.name not in members]
    if missing:
        raise BadInput(f"{path}: has no array {', '.join(missing)}; found {', '.join(sorted(members))}.")
    streams = [_Stream(archive, info.name) for info in inputs]
    counts = {stream.count for stream in streams}
    if len(counts) != 1 or 0 in counts:
        raise BadInput(f"{path}: arrays hold {sorted(counts)} samples: must be one number above 0.")
    return streams


def _places(count: int, batch: int, most: int | None) -> Iterator[np.ndarray]:
    """Places of the samples of each batch, ascending."""
    some = count if most is None else min(most, count)
    chosen = np.arange(some) * count // some
    for start in range(0, some, batch):
        yield chosen[start : start + batch]


def _filled(array: np.ndarray, source: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([array, source[np.arange(count) % len(source)]])


class _Stream:
    """Rows of one member of an npz file, read forwards."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._file = archive.open(f"{name}.npy")
        version = np.lib.format.read_magic(self._file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, self._dtype = read_header(self._file)
        if fortran or self._dtype.hasobject or not shape:
            raise BadInput(f"{archive.filename}: array {name}: must be in C order, of numbers, samples first.")
        self.count, self._shape = shape[0], shape[1:]
        self._start, self._size = self._file.tell(), int(np.prod(shape[1:], dtype=np.int64)) * self._dtype.itemsize

    def read(self, places: np.ndarray) -> np.ndarray:
        """Rows at ascending places, behind those read before."""
        rows = np.empty((len(places), *self._shape), self._dtype)
        flat = rows.reshape(len(places), -1) if rows.size else rows
        for row, place in zip(flat, places, strict=True):
            self._file.seek(self._start + int(place) * self._size)
            row[...] = np.frombuffer(self._file.read(self._size), self._dtype)
        return rows
