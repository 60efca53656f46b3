"""Which values of a tensor were kept, as bytes: a bitmap, or the index of each, whichever is shorter. NumPy only."""

from __future__ import annotations

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["position_bytes", "read_positions", "resting_value", "write_positions"]

_LIMITS = ((1 << 8, "<u1"), (1 << 16, "<u2"), (1 << 32, "<u4"))


def position_bytes(count: int, size: int) -> int:
    """Bytes of `count` positions among `size`."""
    return min(-(-size // 8), count * np.dtype(_index(size)).itemsize)


def write_positions(kept: np.ndarray, size: int) -> bytes:
    """Increasing positions, shape (count,), as bytes."""
    index = kept.astype(_index(size)).tobytes()
    if len(index) <= position_bytes(len(kept), size):
        return index
    mask = np.zeros(size, dtype=bool)
    mask[kept] = True
    return np.packbits(mask, bitorder="little").tobytes()


def read_positions(payload: bytes, count: int, size: int, *, where: str) -> np.ndarray:
    """What `write_positions` was given.

    Raises:
        BadInput: Not `count` increasing positions below `size`.
    """
    if len(payload) == count * np.dtype(_index(size)).itemsize:
        kept = np.frombuffer(payload, _index(size)).astype(np.int64)
        if count and (kept[-1] >= size or (np.diff(kept) <= 0).any()):
            raise BadInput(f"{where}: the positions of its values do not increase, or reach beyond the tensor.")
        return kept
    bits = np.unpackbits(np.frombuffer(payload, np.uint8), bitorder="little")
    kept = np.flatnonzero(bits)
    if len(kept) != count or (count and kept[-1] >= size):
        raise BadInput(f"{where}: {len(kept)} values are marked, must be {count} of {size}.")
    return kept


def resting_value(tensor: TensorInfo) -> int | None:
    """The value that stands for zero, which what is left out becomes; None for tensors whose values are names."""
    if tensor.dtype.startswith("float"):
        return 0
    if tensor.dtype in ("int8", "uint8", "int16") and len(tensor.scale) == 1:
        return int(tensor.zero_point[0])
    return None


def _index(size: int) -> str:
    for limit, dtype in _LIMITS:
        if size <= limit:
            return dtype
    raise BadInput(f"codec: a tensor of {size} values is too large to keep some of them.")
