"""Stream calibration samples out of an npz file, in batches of the size that a program takes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["calibration_batches"]


def calibration_batches(path: Path, inputs: Sequence[TensorInfo], batch: int) -> Iterator[tuple[Any, ...]]:
    """Tensors in call order, `batch` samples at a time, read as they are needed.

    The last batch is filled up with samples from the beginning, so that a program of fixed batch sees every sample.

    Raises:
        BadInput: An input is missing, or arrays differ in length.
    """
    import torch

    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy") for name in archive.namelist()}
        missing = [info.name for info in inputs if info.name not in members]
        if missing:
            raise BadInput(f"{path}: has no array {', '.join(missing)}; found {', '.join(sorted(members))}.")
        streams = [_Stream(archive, info.name) for info in inputs]
        counts = {stream.count for stream in streams}
        if len(counts) != 1 or 0 in counts:
            raise BadInput(f"{path}: arrays hold {sorted(counts)} samples: must be one number above 0.")
        first: list[np.ndarray] = []
        for start in range(0, counts.pop(), batch):
            arrays = [stream.read(batch) for stream in streams]
            if start == 0:
                first = arrays
            short = batch - len(arrays[0])
            if short:
                arrays = [_filled(array, source, short) for array, source in zip(arrays, first, strict=True)]
            yield tuple(
                torch.from_numpy(np.ascontiguousarray(array, dtype=info.dtype))
                for array, info in zip(arrays, inputs, strict=True)
            )


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
        self._left = self.count

    def read(self, rows: int) -> np.ndarray:
        rows = min(rows, self._left)
        self._left -= rows
        size = rows * int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize
        return np.frombuffer(self._file.read(size), self._dtype).reshape(rows, *self._shape).copy()
