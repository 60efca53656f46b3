"""Send real values as INT8 or INT4 with one scale and zero point a tensor, found from the values. Lossy.

Tensors of floats, and quantized integers wider than asked, are coded; ids and other integers without a scale travel as
they are, because their values are names; so do tensors that would not become smaller.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.boundary import checked, from_wire, pieces, to_wire

__all__ = ["OPTIONS", "Requantize", "codec"]

OPTIONS = ("int8", "int4")
_HEADER = struct.Struct("<ff")  # step and lowest value of one tensor
_WIDTH = {"float32": 32, "float64": 64, "float16": 16, "int32": 32, "int16": 16, "int8": 8, "uint8": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Requantize:
    """Asymmetric uniform quantization; see `runtimes.contracts.Codec`.

    Attributes:
        bits: 8 or 4.
    """

    bits: int
    lossless: bool = False
    fixed_size: bool = True
    # Median of runtimes.codec_speed on an x86-64 server core; a device's own speed belongs into its profile.
    encode_s_per_byte: float = 0.6e-9
    decode_s_per_byte: float = 0.25e-9

    def encode(self, arrays: Sequence[np.ndarray], tensors: Sequence[TensorInfo]) -> bytes:
        """Step and lowest value, then the codes, of each tensor that is coded; the others as they are.

        Raises:
            BadInput: The arrays are not these tensors, or hold NaN or infinity.
        """
        checked(arrays, tensors)
        return b"".join(self._encode(array, tensor) for array, tensor in zip(arrays, tensors, strict=True))

    def decode(self, payload: bytes, tensors: Sequence[TensorInfo]) -> tuple[np.ndarray, ...]:
        """The nearest values that the codes tell, in the tensors' own types."""
        parts = pieces(payload, [self.encoded_bytes((tensor,)) for tensor in tensors], codec="requantize")
        return tuple(self._decode(part, tensor) for part, tensor in zip(parts, tensors, strict=True))

    def encoded_bytes(self, tensors: Sequence[TensorInfo]) -> int:
        """Of each coded tensor 8 bytes and its codes, two 4-bit codes in a byte."""
        return sum(self._coded_bytes(tensor) if self._codes(tensor) else tensor_bytes(tensor) for tensor in tensors)

    def _coded_bytes(self, tensor: TensorInfo) -> int:
        return _HEADER.size + math.ceil(math.prod(tensor.shape) * self.bits / 8)

    def _codes(self, tensor: TensorInfo) -> bool:
        real = tensor.dtype.startswith("float") or bool(tensor.scale)
        is_wider = _WIDTH.get(tensor.dtype, 0) > self.bits
        return real and is_wider and self._coded_bytes(tensor) < tensor_bytes(tensor)

    def _encode(self, array: np.ndarray, tensor: TensorInfo) -> bytes:
        if not self._codes(tensor):
            return to_wire(array, tensor.dtype)
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
        step = np.float32((high - low) / (2**self.bits - 1))
        if not (math.isfinite(low) and math.isfinite(float(step)) and math.isfinite(np.float32(low))):
            raise BadInput(f"codec requantize: {tensor.name} holds NaN, infinity or values beyond float32.")
        if step == 0:
            codes = np.zeros(array.shape, dtype=np.uint8)
        else:
            steps = np.rint((array.astype(np.float64) - np.float64(np.float32(low))) / np.float64(step))
            codes = np.clip(steps, 0, 2**self.bits - 1).astype(np.uint8)
        return _HEADER.pack(step, low) + to_wire(codes, self._wire)

    def _decode(self, payload: bytes, tensor: TensorInfo) -> np.ndarray:
        if not self._codes(tensor):
            return from_wire(payload, tensor.dtype, tensor.shape)
        step, low = _HEADER.unpack_from(payload)
        codes = from_wire(payload[_HEADER.size :], self._wire, tensor.shape)
        values = codes.astype(np.float64) * step + low
        if tensor.dtype.startswith("float"):
            return np.asarray(values, dtype=tensor.dtype)
        held = np.iinfo(np.dtype(tensor.dtype))
        return np.asarray(np.clip(np.rint(values), held.min, held.max), dtype=tensor.dtype)

    @property
    def _wire(self) -> str:
        return "uint8" if self.bits == 8 else "uint4"


def codec(option: str = "int8") -> Requantize:
    """The codec with 8 or 4 bits.

    Raises:
        BadInput: Another option.
    """
    if option not in OPTIONS:
        if not option:
            return Requantize(bits=8)
        raise BadInput(f"codec requantize:{option}: must be {' or '.join(OPTIONS)}.")
    return Requantize(bits=int(option.removeprefix("int")))
