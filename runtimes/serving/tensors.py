"""Arrays as tensors of the Open Inference Protocol and back: names of types, raw bytes, and nothing taken on trust."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import DType, TensorInfo

__all__ = [
    "DATATYPES",
    "array_bytes",
    "array_from_raw",
    "array_from_values",
    "datatype",
    "datatype_of",
    "dtype_of",
    "fits",
    "holder",
]

DATATYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "bool": "BOOL",
}
_DTYPES: dict[str, DType] = {name: dtype for dtype, name in DATATYPES.items()}  # type: ignore[misc]  # keys are DTypes
_HOLDERS = {"int4": "int8", "int2": "int8", "uint4": "uint8"}  # one value a byte, as sessions take them
_BY_TYPE = {np.dtype(dtype).str: name for dtype, name in DATATYPES.items()}  # NumPy takes long to tell a type's name
_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def holder(dtype: str) -> str:
    """The NumPy type whose arrays hold values of a tensor's type."""
    return _HOLDERS.get(dtype, dtype)


def datatype(dtype: str) -> str:
    """The protocol's name of a tensor's type; narrow integers travel one a byte."""
    return DATATYPES[holder(dtype)]


def datatype_of(array: np.ndarray, name: str) -> str:
    """The protocol's name of an array's type.

    Raises:
        BadInput: One that cannot travel.
    """
    found = _BY_TYPE.get(array.dtype.str) or DATATYPES.get(array.dtype.name)
    if found is None:
        raise BadInput(f"tensor {name}: type {array.dtype}: must be one of {', '.join(DATATYPES)}.")
    return found


def dtype_of(name: str) -> DType:
    """The type that the protocol calls so.

    Raises:
        BadInput: A type that no model here takes, such as BYTES.
    """
    if name not in _DTYPES:
        raise BadInput(f"datatype {name[:20]!r}: must be {', '.join(_DTYPES)}.")
    return _DTYPES[name]


def fits(shape: Sequence[int], info: TensorInfo) -> bool:
    """Whether a shape is one that the tensor may have: -1 stands for any size from 1 on."""
    shape = tuple(shape)
    if shape == info.shape:
        return min(shape, default=0) >= 0
    if len(shape) != len(info.shape):
        return False
    return all(have == want or (want == -1 and have > 0) for have, want in zip(shape, info.shape, strict=True))


def array_bytes(array: np.ndarray) -> bytes:
    """The values in C order, little-endian."""
    if array.dtype.str[0] == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


def array_from_raw(raw: bytes, dtype: str, shape: Sequence[int], *, name: str) -> np.ndarray:
    """An array over the bytes; it cannot be written to.

    Raises:
        BadInput: Another number of bytes than the shape needs, or booleans that are neither 0 nor 1.
    """
    kind, shape = _on_the_wire(dtype), tuple(shape)
    wanted = math.prod(shape) * kind.itemsize
    if len(raw) != wanted:
        raise BadInput(f"tensor {name}: {len(raw)} bytes, must be {wanted} for {holder(dtype)} {shape}.")
    if kind == np.bool_ and raw.strip(b"\0\1"):
        # NumPy and the kernels behind it count on it; what else stands in a byte would be read in different ways.
        raise BadInput(f"tensor {name}: booleans must be bytes of 0 or 1.")
    return np.frombuffer(raw, kind).reshape(shape)


@functools.cache
def _on_the_wire(dtype: str) -> np.dtype[Any]:
    return np.dtype(holder(dtype)).newbyteorder("<")


def array_from_values(contents: Any, dtype: str, shape: Sequence[int], *, name: str) -> np.ndarray:
    """An array of the typed contents of a message, for clients that do not send raw bytes.

    Raises:
        BadInput: The values stand in another field than their type's, are not as many as the shape needs, or do not
            fit the type.
    """
    kind = DATATYPES[holder(dtype)]
    if kind not in _TYPED_FIELDS:
        raise BadInput(f"tensor {name}: {kind} has no typed contents; send raw_input_contents.")
    values = getattr(contents, _TYPED_FIELDS[kind])
    if len(values) != math.prod(shape):
        found = f"{len(values)} values in {_TYPED_FIELDS[kind]}"
        raise BadInput(f"tensor {name}: {found}, must be {math.prod(shape)} for {holder(dtype)} {tuple(shape)}.")
    target = np.dtype(holder(dtype))
    array = np.array(values, dtype=np.int64 if target.kind in "iu" else target)
    if target.kind in "iu" and array.size:
        held = np.iinfo(target)
        if array.min() < held.min or array.max() > held.max:
            raise BadInput(f"tensor {name}: values outside {target}.")
    return array.astype(target).reshape(tuple(shape))
