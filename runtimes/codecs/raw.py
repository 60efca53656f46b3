"""The boundary as it is: the bytes of each tensor one after the other, two 4-bit values in a byte. Lossless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.boundary import checked, from_wire, pieces, to_wire

__all__ = ["OPTIONS", "Raw", "codec"]

OPTIONS = ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Moves bytes; see `runtimes.contracts.Codec`."""

    lossless: bool = True
    fixed_size: bool = True
    encode_s_per_byte: float = 0.0
    decode_s_per_byte: float = 0.0

    def encode(self, arrays: Sequence[np.ndarray], tensors: Sequence[TensorInfo]) -> bytes:
        """The tensors as they lie in memory."""
        checked(arrays, tensors)
        return b"".join(to_wire(array, tensor.dtype) for array, tensor in zip(arrays, tensors, strict=True))

    def decode(self, payload: bytes, tensors: Sequence[TensorInfo]) -> tuple[np.ndarray, ...]:
        """The tensors bit by bit."""
        parts = pieces(payload, [tensor_bytes(tensor) for tensor in tensors], codec="raw")
        return tuple(from_wire(part, tensor.dtype, tensor.shape) for part, tensor in zip(parts, tensors, strict=True))

    def encoded_bytes(self, tensors: Sequence[TensorInfo]) -> int:
        """The sum of the tensors' sizes."""
        return sum(tensor_bytes(tensor) for tensor in tensors)


def codec(option: str = "") -> Raw:
    """The codec; it has no options.

    Raises:
        BadInput: An option was given.
    """
    if option:
        raise BadInput(f"codec raw:{option}: raw has no options; write `raw`.")
    return Raw()
