"""All first bytes of a tensor's values, then all second ones, and so on: what compressors behind it want. Lossless.

Exponents of floats resemble each other, mantissas do not; side by side the former compress.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.boundary import checked, from_wire, pieces, to_wire

__all__ = ["OPTIONS", "Shuffle", "codec"]

OPTIONS = ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffle:
    """Moves bytes; see `runtimes.contracts.Codec`."""

    lossless: bool = True
    fixed_size: bool = True
    encode_s_per_byte: float = 0.4e-9
    decode_s_per_byte: float = 0.8e-9

    def encode(self, arrays: Sequence[np.ndarray], tensors: Sequence[TensorInfo]) -> bytes:
        """The tensors by place of their bytes."""
        checked(arrays, tensors)
        parts = []
        for array, tensor in zip(arrays, tensors, strict=True):
            wire = to_wire(array, tensor.dtype)
            width = _width(tensor)
            parts.append(wire if width == 1 else np.frombuffer(wire, np.uint8).reshape(-1, width).T.tobytes())
        return b"".join(parts)

    def decode(self, payload: bytes, tensors: Sequence[TensorInfo]) -> tuple[np.ndarray, ...]:
        """The tensors bit by bit."""
        parts = pieces(payload, [tensor_bytes(tensor) for tensor in tensors], codec="shuffle")
        found = []
        for part, tensor in zip(parts, tensors, strict=True):
            width = _width(tensor)
            wire = np.frombuffer(part, np.uint8).reshape(width, -1).T.tobytes() if width > 1 else part
            found.append(from_wire(wire, tensor.dtype, tensor.shape))
        return tuple(found)

    def encoded_bytes(self, tensors: Sequence[TensorInfo]) -> int:
        """The sum of the tensors' sizes."""
        return sum(tensor_bytes(tensor) for tensor in tensors)


def _width(tensor: TensorInfo) -> int:
    """Bytes of one value; 1 where several share one, or there are none."""
    packed = tensor.dtype in ("int4", "uint4", "int2")
    return 1 if packed or not tensor_bytes(tensor) else np.dtype(tensor.dtype).itemsize


def codec(option: str = "") -> Shuffle:
    """The codec; it has no options.

    Raises:
        BadInput: An option was given.
    """
    if option:
        raise BadInput(f"codec shuffle:{option}: shuffle has no options; write `shuffle`.")
    return Shuffle()
