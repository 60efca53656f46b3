"""Where the arrays of a checkpoint stand in its files, without reading them and without their framework.

Safetensors (also in several files), folders of `.npy`, and what `torch.save` has written since PyTorch 1.6: a zip
archive of uncompressed records behind a pickle, of which only names, types and sizes are taken.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.recommender.rows import StoredArray
from edge_deploy.core.errors import BadInput

__all__ = ["WEIGHT_FILES", "index_weights", "weight_bytes"]

WEIGHT_FILES = (".safetensors", ".npy", ".pt", ".pth", ".bin", ".ckpt")
CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "net")
LONGEST_HEADER = 100_000_000  # the format's own limit
_SAFE_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_TORCH_TYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip


def weight_bytes(path: Path) -> int:
    """Bytes of all weight files behind `path`; 0 where it does not exist."""
    try:
        if path.is_dir():
            return sum(each.stat().st_size for each in path.iterdir() if each.suffix in WEIGHT_FILES)
        if path.name.endswith(".index.json"):
            return weight_bytes(path.parent)
        return path.stat().st_size
    except OSError:
        return 0


def index_weights(path: Path) -> dict[str, StoredArray]:
    """The arrays of a checkpoint by name, in the order of the file.

    Args:
        path: A file, a folder of `.npy` or `.safetensors` files, or a `.safetensors.index.json` of several.

    Raises:
        BadInput: Missing, damaged, of another kind, or its arrays do not lie in one piece.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if path.name.endswith(".index.json"):
            return _shards(path)
        if path.suffix == ".npy":
            return {path.stem: _npy(path)}
        if path.suffix == ".safetensors":
            return _safetensors(path)
        return _torch(path)
    except OSError as error:
        raise BadInput(f"--weights {path}: cannot be read ({error.strerror}).") from error


def _folder(path: Path) -> dict[str, StoredArray]:
    index = sorted(path.glob("*.safetensors.index.json"))
    if index:
        return _shards(index[0])
    found: dict[str, StoredArray] = {}
    for file in sorted(path.glob("*.safetensors")):
        found |= _safetensors(file)
    for file in sorted(path.glob("*.npy")):
        found[file.stem] = _npy(file)
    if not found:
        raise BadInput(f"--weights {path}: holds no .npy and no .safetensors files.")
    return found


def _shards(path: Path) -> dict[str, StoredArray]:
    try:
        files = dict.fromkeys(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        names = [Path(str(name)).name for name in files]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"--weights {path}: is no index of safetensors files ({error}).") from error
    found: dict[str, StoredArray] = {}
    for name in names:
        found |= _safetensors(path.parent / name)
    return found


def _npy(path: Path) -> StoredArray:
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
        except ValueError as error:
            raise BadInput(f"--weights {path}: is no .npy file, or cut short ({error}).") from error
        if (fortran and sum(size > 1 for size in shape) > 1) or dtype.byteorder == ">":
            raise BadInput(f"--weights {path}: its rows do not lie in one piece; save np.ascontiguousarray of it.")
        stored = StoredArray(path=path.absolute(), offset=file.tell(), dtype=dtype.name, shape=tuple(shape))
    return _whole(stored, path)


def _safetensors(path: Path) -> dict[str, StoredArray]:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(LONGEST_HEADER, size - 8):
            raise BadInput(f"--weights {path}: is no safetensors file, or cut short.")
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            found = {
                name: StoredArray(
                    path=path.absolute(),
                    offset=8 + length + _start(entry),
                    dtype=_SAFE_TYPES.get(entry["dtype"], entry["dtype"]),
                    shape=tuple(int(each) for each in entry["shape"]),
                )
                for name, entry in entries.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise BadInput(f"--weights {path}: its safetensors header is damaged ({error}).") from error
    return {name: _whole(stored, path) for name, stored in found.items()}


def _start(entry: Mapping[str, Any]) -> int:
    start = int(entry["data_offsets"][0])
    if start < 0:
        raise ValueError(f"data begins at {start}")
    return start


def _whole(stored: StoredArray, path: Path) -> StoredArray:
    size = path.stat().st_size
    if stored.offset + stored.bytes > size:
        raise BadInput(
            f"--weights {path}: ends after {size} bytes, inside its arrays; it was cut short, copy it again."
        )
    return stored


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str


def _torch(path: Path) -> dict[str, StoredArray]:
    if not zipfile.is_zipfile(path):
        raise BadInput(
            f"--weights {path}: is no checkpoint that can be read in place: must be .safetensors, a folder of .npy, or "
            "what torch.save of PyTorch 1.6 or later has written."
        )
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            entries = {info.filename: info for info in archive.infolist()}
            root = next((name for name in entries if name.endswith("data.pkl")), None)
            if root is None:
                raise BadInput(f"--weights {path}: is a zip archive without a PyTorch checkpoint in it.")
            folder = root.removesuffix("data.pkl")
            order = entries.get(f"{folder}byteorder")
            if order is not None and archive.read(order) != b"little":
                raise BadInput(f"--weights {path}: was saved on a big-endian machine; save it again on another.")
            place = _placing(path, file, entries, folder)
            loaded = _Reader(io.BytesIO(archive.read(root)), path, place).load()
    except (zipfile.BadZipFile, struct.error, EOFError) as error:
        raise BadInput(f"--weights {path}: is truncated or damaged ({error}).") from error
    state = _state_dict(loaded, path)
    split = [name for name, each in state.items() if isinstance(each, _Scattered)]
    if split:
        raise BadInput(f"--weights {path}: {split[0]}: does not lie in one piece; save contiguous tensors.")
    return {name: _whole(each, path) for name, each in state.items() if isinstance(each, StoredArray)}


def _placing(path: Path, file: Any, entries: dict[str, zipfile.ZipInfo], folder: str) -> Callable[[str], int]:
    """Where the record of a storage begins."""

    def place(key: str) -> int:
        info = entries.get(f"{folder}data/{key}")
        if info is None or info.compress_type != zipfile.ZIP_STORED:
            raise BadInput(f"--weights {path}: record {key} is missing or compressed; save it again with torch.save.")
        file.seek(info.header_offset)
        name, extra = struct.unpack("<26xHH", file.read(30))
        return int(info.header_offset + 30 + name + extra)

    return place


@dataclass(frozen=True, slots=True)
class _Scattered:
    """A tensor whose rows are not next to each other."""


class _Reader(pickle.Unpickler):
    """Takes tensors as places in the file, plain containers, and nothing that runs code."""

    def __init__(self, data: io.BytesIO, path: Path, place: Callable[[str], int]) -> None:
        super().__init__(data)
        self._path, self._place = path, place

    def load(self) -> Any:
        """See `pickle.Unpickler.load`.

        Raises:
            BadInput: The pickle holds other things than weights, or is damaged.
        """
        try:
            return super().load()
        except (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise BadInput(f"--weights {self._path}: is damaged, or holds more than weights ({error}).") from error

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage is its record's name and its type."""
        kind, storage_type, key, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"a persistent {kind!r}")
        return _Storage(str(key), str(storage_type))

    def find_class(self, module: str, name: str) -> Any:
        """Names that checkpoints of weights hold; anything else is refused."""
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch", "Size"): tuple,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _TORCH_TYPES:
            return _TORCH_TYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name}, which is not loaded because it could run code")

    def _tensor(self, storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> StoredArray | _Scattered:
        shape, strides = tuple(int(each) for each in size), tuple(int(each) for each in stride)
        expected = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        apart = any(have != want for have, want, n in zip(strides, expected, shape, strict=True) if n > 1)
        if apart and 0 not in shape:
            return _Scattered()
        width = 2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize
        start = self._place(storage.key) + int(offset) * width
        return StoredArray(path=self._path.absolute(), offset=start, dtype=storage.dtype, shape=shape)


def _state_dict(loaded: Any, path: Path) -> dict[str, Any]:
    def is_state(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and bool(value)
            and all(isinstance(item, StoredArray | _Scattered) for item in value.values())
        )

    if is_state(loaded):
        return dict(loaded)
    if isinstance(loaded, dict):
        for name in CONTAINERS:
            if is_state(loaded.get(name)):
                return dict(loaded[name])
    raise BadInput(f"--weights {path}: must hold a state dict, or have one under 'state_dict'.")
