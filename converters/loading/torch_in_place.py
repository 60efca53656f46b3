"""A PyTorch module whose tables are its checkpoint's bytes on disk: neither its factory nor its loading makes them.

While the factory runs, tensors of a megabyte or more are left without memory (on the device "meta"); then the small
weights are copied out of the checkpoint and the large ones mapped. What the recogniser finds in such a module lies
somewhere in a file, and stays there.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.loading.checkpoint import TRAINED
from converters.loading.torch_factory import make_module
from converters.loading.weight_index import index_weights
from converters.recommender.rows import StoredArray, map_array, row_chunks
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from torch import nn

__all__ = ["InPlace", "has_large_tables", "module_in_place", "places_of"]

LARGE_TABLES = 16 << 20  # bytes of all tables together, from which on they stay where they are
LEAST_META = 1 << 18  # elements of a tensor that the factory makes without memory
LEAST_MAPPED = 1 << 20  # bytes of an array that is mapped instead of copied
TALL = 16  # a table has so many times more rows than columns
MAKERS = ("empty", "zeros", "ones", "full", "rand", "randn", "randint", "normal", "empty_strided")
SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlace:
    """A module with mapped weights.

    Attributes:
        maps: What was mapped, by name, to find recognised arrays in.
        stored: Where each of them stands.
        scales: Scales that training learned.
    """

    module: nn.Module
    maps: Mapping[str, np.ndarray]
    stored: Mapping[str, StoredArray]
    scales: dict[str, np.ndarray]
    notes: tuple[str, ...]


def has_large_tables(weights: Path) -> bool:
    """Whether a checkpoint that can be read in place holds tables worth it, or can be read in no other way.

    Only heads of files are read.
    """
    try:
        stored = index_weights(weights)
    except BadInput:
        return False
    if weights.is_dir() or weights.name.endswith(".index.json"):
        return True
    return sum(array.bytes for array in stored.values() if _is_tall(array)) >= LARGE_TABLES


def _is_tall(array: StoredArray) -> bool:
    return len(array.shape) == 2 and array.shape[0] >= TALL * array.shape[1]


def module_in_place(source: str, search_path: tuple[str, ...], weights: Path, scratch: Path) -> InPlace:
    """The module that the factory makes, with the checkpoint's weights.

    Args:
        scratch: Folder for float32 copies of tables that are stored in another type.

    Raises:
        BadInput: The factory fails, or the checkpoint does not fit its module; names what is missing or unexpected.
    """
    torch = require("torch", extra="export-tflite")
    with _large_on_meta(torch):
        module = make_module(source, search_path)
    stored = index_weights(weights)
    own = module.state_dict()
    notes: tuple[str, ...] = ()
    prefix = "module."
    if stored and all(name.startswith(prefix) for name in stored) and not any(name.startswith(prefix) for name in own):
        stored = {name.removeprefix(prefix): array for name, array in stored.items()}
        notes = ("prefix 'module.' (DataParallel) removed from the names of the weights",)
    scales = {name: stored.pop(name) for name in list(stored) if name.endswith(TRAINED) and name not in own}
    problems = _mismatches(weights, stored, own)
    if problems:
        raise BadInput(*problems)
    state: dict[str, Any] = {}
    maps: dict[str, np.ndarray] = {}
    places: dict[str, StoredArray] = {}
    for name, array in stored.items():
        wanted = own[name]
        if array.bytes < LEAST_MAPPED or not wanted.is_floating_point():
            state[name] = torch.from_numpy(np.array(_plain(map_array(array)))).to(wanted.dtype)
            continue
        if array.dtype != "float32":
            array = _widened(array, scratch / f"{len(maps)}.npy")
        maps[name], places[name] = map_array(array), array
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that what is mapped must not be written
            state[name] = torch.from_numpy(maps[name])
    module.load_state_dict(state, strict=False, assign=True)
    empty = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if empty:
        raise BadInput(f"--source {source}: {', '.join(empty[:SHOWN])}: large, and not in {weights.name}.")
    return InPlace(
        module=module,
        maps=maps,
        stored=places,
        scales={name: np.array(map_array(array)) for name, array in scales.items()},
        notes=notes,
    )


def _large_on_meta(torch: Any) -> Any:
    """A mode in which large tensors are made without memory."""
    makers = {getattr(torch, name) for name in MAKERS}
    base: Any = require("torch.overrides", extra="export-tflite").TorchFunctionMode

    class LargeOnMeta(base):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function in makers and kwargs.get("device") is None and _elements(args, kwargs) >= LEAST_META:
                kwargs = {**{key: value for key, value in kwargs.items() if key != "generator"}, "device": "meta"}
            return function(*args, **kwargs)

    return LargeOnMeta()


def _elements(args: Any, kwargs: Mapping[str, Any]) -> int:
    """Of the tensor that a call makes, from its first sequence or its integers."""
    size = kwargs.get("size")
    if size is None:
        size = next((each for each in args if isinstance(each, tuple | list)), None)
    if size is None:
        size = [each for each in args if isinstance(each, int)]
    return math.prod(int(each) for each in size) if size else 0


def _mismatches(path: Path, stored: Mapping[str, StoredArray], own: Mapping[str, Any]) -> list[str]:
    missing = [name for name in own if name not in stored and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in stored if name not in own]
    shapes = [
        f"{name} is {list(stored[name].shape)}, the module's {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in stored and stored[name].shape != tuple(tensor.shape)
    ]
    problems = []
    for label, names in (
        ("has no weights for", missing),
        ("has weights that the module does not know", unexpected),
        ("has weights of another shape", shapes),
    ):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            problems.append(f"--weights {path}: {label}: {', '.join(names[:SHOWN])}{more}.")
    return problems


def _plain(array: np.ndarray) -> np.ndarray:
    """In a type that torch takes from NumPy."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _widened(array: StoredArray, path: Path) -> StoredArray:
    """A float32 copy on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = map_array(array).reshape(array.shape[0], -1)
    with path.open("wb") as file:
        for rows in row_chunks(held):
            file.write(np.ascontiguousarray(rows).data)
    return StoredArray(path=path.absolute(), offset=0, dtype="float32", shape=array.shape)


def places_of(arrays: Mapping[str, np.ndarray], found: InPlace) -> dict[str, StoredArray]:
    """Where recognised arrays stand that are mapped parts of the checkpoint; the others are not in the answer."""
    spans = {name: (_address(array), array.nbytes) for name, array in found.maps.items()}
    places = {}
    for key, array in arrays.items():
        at = _address(array)
        for name, (start, size) in spans.items():
            if start <= at and at + array.nbytes <= start + size and array.flags.c_contiguous:
                stored = found.stored[name]
                offset = stored.offset + at - start
                places[key] = StoredArray(path=stored.path, offset=offset, dtype="float32", shape=array.shape)
    return places


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
