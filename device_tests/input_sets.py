"""Inputs for a benchmark: random ones that fit a signature, or the first samples of an npz file."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo, encode_input

__all__ = ["InputSet", "npz_input_sets", "random_input_sets", "read_calls", "unbounded_ids"]

InputSet: TypeAlias = dict[str, np.ndarray]
MOST_SETS = 64
MOST_BYTES = 64_000_000


def random_input_sets(signature: Signature, *, seed: int) -> tuple[InputSet, ...]:
    """Several sets of random inputs, so that table look-ups do not always find the same rows in the cache.

    Floats are standard normal, quantized integers cover their type, ids are uniform within their tables. Other integers
    are zeros: nothing says what else would be safe (see `unbounded_ids`). A dynamic batch becomes 1.

    Raises:
        BadInput: An input has another dynamic dimension.
    """
    dynamic = [info for info in signature.inputs if any(size < 0 for size in info.shape[1:])]
    if dynamic:
        raise BadInput(
            *(f"input {info.name}: shape {info.shape} is dynamic: give inputs in an npz file." for info in dynamic)
        )
    generator = np.random.default_rng(seed)
    size = sum(math.prod(_shape(info)) * np.dtype(_storage(info)).itemsize for info in signature.inputs)
    count = max(1, min(MOST_SETS, MOST_BYTES // max(size, 1)))
    return tuple({info.name: _random(info, generator) for info in signature.inputs} for _ in range(count))


def unbounded_ids(signature: Signature) -> tuple[str, ...]:
    """Names of integer inputs of which nothing says how large their values may be."""
    return tuple(
        info.name
        for info in signature.inputs
        if np.dtype(_storage(info)).kind in "iu" and not info.scale and not info.id_bounds
    )


def npz_input_sets(path: Path, signature: Signature, source: tuple[TensorInfo, ...] = ()) -> tuple[InputSet, ...]:
    """The samples of an npz file in batches as the signature takes them.

    Args:
        path: Arrays by input name, or `x` for a single input, samples along dimension 0.
        source: The float model's inputs, in whose terms the arrays stand; empty when they stand in the artifact's.

    Raises:
        BadInput: Not an npz file, an input is missing, or there are fewer samples than one batch.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise BadInput(f"{path}: not an npz file of plain arrays ({error}).") from error
    sources = {info.name: info for info in source}
    columns: dict[str, list[np.ndarray]] = {}
    for info in signature.inputs:
        name = "x" if len(signature.inputs) == 1 and info.name not in arrays else info.name
        if name not in arrays:
            raise BadInput(f"{path}: array {info.name!r} is missing; found {', '.join(arrays) or 'none'}.")
        encoded = encode_input(arrays[name], source=sources.get(info.name, info), target=info)
        if encoded.shape[1:] != info.shape[1:]:
            raise BadInput(
                f"{path}: array {name!r} has samples of shape {encoded.shape[1:]}: must be {info.shape[1:]}."
            )
        batch = max(info.shape[0], 1)
        if len(encoded) < batch:
            raise BadInput(f"{path}: array {name!r} holds {len(encoded)} samples: the batch is {batch}.")
        columns[info.name] = [encoded[at : at + batch] for at in range(0, len(encoded) - batch + 1, batch)][:MOST_SETS]
    count = min(len(sets) for sets in columns.values())
    return tuple({name: sets[number] for name, sets in columns.items()} for number in range(count))


def read_calls(path: Path, signature: Signature) -> tuple[InputSet, ...]:
    """Inputs of one call after the other from an npz of arrays [calls, *shape] by name, in the signature's own types.

    Raises:
        BadInput: Not an npz file, an input is missing, or arrays hold different numbers of calls.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {info.name: archive[info.name] for info in signature.inputs if info.name in archive.files}
            found = ", ".join(archive.files) or "none"
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise BadInput(f"{path}: not an npz file of plain arrays ({error}).") from error
    missing = [info.name for info in signature.inputs if info.name not in arrays]
    if missing:
        raise BadInput(f"{path}: array {missing[0]!r} is missing; found {found}.")
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1:
        raise BadInput(f"{path}: arrays hold {sorted(counts)} calls: must be equally many.")
    # Copies, because runtimes want whole, writable arrays, which a row of an archive need not be.
    return tuple({name: np.array(array[k]) for name, array in arrays.items()} for k in range(counts.pop()))


def _random(info: TensorInfo, generator: np.random.Generator) -> np.ndarray:
    kind = np.dtype(_storage(info))
    if kind.kind == "f":
        return generator.standard_normal(_shape(info)).astype(kind)
    if kind.kind == "b":
        return generator.integers(0, 2, _shape(info)).astype(kind)
    if info.id_bounds:
        return generator.integers(0, np.asarray(info.id_bounds), _shape(info)).astype(kind)
    if info.scale:
        limits = np.iinfo(kind)
        return generator.integers(limits.min, limits.max + 1, _shape(info)).astype(kind)
    return np.zeros(_shape(info), kind)


def _shape(info: TensorInfo) -> tuple[int, ...]:
    return tuple(max(size, 1) if axis == 0 else size for axis, size in enumerate(info.shape))


def _storage(info: TensorInfo) -> str:
    """What a caller passes: packed types travel as bytes."""
    return {"int4": "int8", "int2": "int8", "uint4": "uint8"}.get(info.dtype, info.dtype)
