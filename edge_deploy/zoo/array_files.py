"""Data sets in .npz and .npy files, mapped from disk where they are not compressed."""

from __future__ import annotations

import difflib
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.dataset import Sample
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["ArrayDataset", "open_npy", "open_npz"]

LABELS = "y"
SINGLE = "x"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayDataset:
    """Samples that are slices of arrays along their first axis."""

    name: str
    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        for index in range(self.count):
            inputs = {name: np.array(array[index]) for name, array in self.arrays.items()}
            yield Sample(inputs=inputs, label=None if self.labels is None else float(self.labels[index]))


def open_npz(path: Path, inputs: tuple[TensorInfo, ...], limit: int | None) -> ArrayDataset:
    """Arrays by input name, or `x` for a model's only input; labels in `y`.

    Raises:
        BadInput: Damaged, pickled, arrays missing or unknown, lengths or shapes that do not fit.
    """
    found = _members(path)
    names = [info.name for info in inputs]
    labels = found.pop(LABELS) if LABELS in found and LABELS not in names else None
    if len(inputs) == 1 and SINGLE in found and names[0] not in found:
        found[names[0]] = found.pop(SINGLE)
    problems = []
    for name in names:
        if name not in found:
            also = " (or x)" if len(names) == 1 else ""
            problems.append(f"{path}: array {name!r}{also} is missing; found {', '.join(found) or 'none'}.")
    for name in found:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the model's inputs are {', '.join(names)}."
            problems.append(f"{path}: array {name!r}: unknown; {hint}")
    if problems:
        raise BadInput(*problems)
    return _dataset(path, {name: found[name] for name in names}, labels, inputs, limit)


def open_npy(path: Path, inputs: tuple[TensorInfo, ...], limit: int | None) -> ArrayDataset:
    """One array for a model's only input; no labels.

    Raises:
        BadInput: Damaged, pickled, several inputs, or a shape that does not fit.
    """
    if len(inputs) != 1:
        names = ", ".join(info.name for info in inputs)
        raise BadInput(f"{path}: one array for {len(inputs)} inputs; give an .npz with arrays {names}.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: is no readable .npy file ({error}).") from error
    return _dataset(path, {inputs[0].name: array}, None, inputs, limit)


def _dataset(
    path: Path,
    arrays: dict[str, np.ndarray],
    labels: np.ndarray | None,
    inputs: tuple[TensorInfo, ...],
    limit: int | None,
) -> ArrayDataset:
    problems = []
    for info in inputs:
        array, shape = arrays[info.name], info.shape[1:]
        fits = array.ndim == len(info.shape) and all(a in (-1, b) for a, b in zip(shape, array.shape[1:], strict=True))
        if not fits:
            problems.append(
                f"{path}: array {info.name!r} has shape {array.shape}: must be (samples, {', '.join(map(str, shape))})."
            )
        elif array.dtype.kind not in "fiub":
            problems.append(f"{path}: array {info.name!r} is {array.dtype}: must be numbers for {info.dtype}.")
    if problems:
        raise BadInput(*problems)
    lengths = {name: len(array) for name, array in arrays.items()}
    if labels is not None:
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "fiub":
            raise BadInput(f"{path}: labels y: {labels.dtype} {labels.shape}: must be one number for each sample.")
        lengths["labels y"] = len(labels)
    if len(set(lengths.values())) != 1:
        text = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise BadInput(f"{path}: arrays differ in their number of samples ({text}).")
    count = next(iter(lengths.values()))
    if count == 0:
        raise BadInput(f"{path}: holds no sample.")
    return ArrayDataset(
        name=str(path), arrays=arrays, labels=labels, count=count if limit is None else min(count, limit)
    )


def _members(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                entry.filename.removesuffix(".npy"): _member(path, archive, entry)
                for entry in archive.infolist()
                if entry.filename.endswith(".npy")
            }
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise BadInput(f"{path}: is no readable .npz file ({error}).") from error


def _member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as file:
        header: Any = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        version = np.lib.format.read_magic(file)
        if entry.compress_type != zipfile.ZIP_STORED or version not in header:
            file.seek(0)
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
            return array
        shape, by_column, kind = header[version](file)
        if kind.hasobject:
            raise ValueError(f"array {entry.filename} holds Python objects, which are not loaded")
        start = file.tell()
    if 0 in shape:
        return np.empty(shape, kind)
    offset = _data_offset(path, entry) + start
    if offset + int(np.prod(shape)) * kind.itemsize > path.stat().st_size:
        raise ValueError(f"array {entry.filename} ends behind the file")
    return np.memmap(path, kind, "r", offset, shape, "F" if by_column else "C")


def _data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose two last fields are lengths."""
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return int(entry.header_offset + 30 + name + extra)
