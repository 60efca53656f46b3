"""Arrays at a cut as bytes on the wire and back: C order, little-endian, 4-bit and 2-bit values packed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["checked", "from_wire", "pieces", "to_wire"]

_PACKED = {"int4": 4, "uint4": 4, "int2": 2}


def checked(arrays: Sequence[np.ndarray], tensors: Sequence[TensorInfo]) -> None:
    """Refuse arrays that are not the tensors of the boundary.

    Raises:
        BadInput: Another number, shape or type.
    """
    if len(arrays) != len(tensors):
        raise BadInput(f"boundary: {len(arrays)} arrays, must be {len(tensors)}.")
    problems = []
    for array, tensor in zip(arrays, tensors, strict=True):
        if array.shape != tensor.shape or array.dtype != _holder(tensor.dtype):
            found = f"{array.dtype} {array.shape}"
            problems.append(f"boundary: {tensor.name}: {found}, must be {_holder(tensor.dtype)} {tensor.shape}.")
    if problems:
        raise BadInput(*problems)


def to_wire(array: np.ndarray, dtype: str) -> bytes:
    """Bytes of the values; narrow integers, one a byte in memory, are packed with the first value in the low bits."""
    if dtype not in _PACKED:
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    bits = _PACKED[dtype]
    in_byte = 8 // bits
    values = array.reshape(-1).view(np.uint8) & ((1 << bits) - 1)
    padded = np.zeros(math.ceil(values.size / in_byte) * in_byte, dtype=np.uint8)
    padded[: values.size] = values
    packed = np.zeros(padded.size // in_byte, dtype=np.uint8)
    for place in range(in_byte):
        packed |= padded[place::in_byte] << (bits * place)
    return packed.tobytes()


def from_wire(payload: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """What `to_wire` was given; narrow integers come back one a byte."""
    if dtype not in _PACKED:
        return np.frombuffer(payload, dtype=np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)
    bits = _PACKED[dtype]
    packed = np.frombuffer(payload, dtype=np.uint8)
    values = np.stack([(packed >> (bits * place)) & ((1 << bits) - 1) for place in range(8 // bits)], axis=1)
    values = values.reshape(-1)[: math.prod(shape)].reshape(shape)
    if dtype == "uint4":
        return values
    sign = np.uint8(1 << (bits - 1))
    return ((values ^ sign).astype(np.int8) - np.int8(sign)).astype(np.int8)


def pieces(payload: bytes, sizes: Sequence[int], *, codec: str) -> list[bytes]:
    """A payload cut into the bytes of each tensor.

    Raises:
        BadInput: It is longer or shorter than they are together.
    """
    if len(payload) != sum(sizes):
        raise BadInput(f"codec {codec}: {len(payload)} bytes arrived, must be {sum(sizes)}.")
    ends = list(itertools.accumulate(sizes))
    return [payload[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _holder(dtype: str) -> np.dtype:
    narrow = {"int4": "int8", "int2": "int8", "uint4": "uint8"}
    return np.dtype(narrow.get(dtype, dtype))
