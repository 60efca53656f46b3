"""Values farther from zero than a threshold travel, the others become zero. Lossy; the values decide the size.

Option: the share that the threshold is chosen for, e.g. "10%", and "-int8" behind it to send what is kept as INT8. The
hard threshold of dynamic communication thresholding (Gupta et al., arXiv 2010.08899): finding it is what takes time, so
a sender finds it once in a while and keeps it in between. Quiet samples then send less, busy ones more.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.boundary import checked, from_wire, to_wire
from runtimes.contracts import Codec
from runtimes.kept_share import magnitudes, parse_kept_share, values_info
from runtimes.positions import position_bytes, read_positions, resting_value, write_positions

__all__ = ["OPTIONS", "Threshold", "codec"]

OPTIONS = ("10%", "10%-int8")
# A request is far rarer than a training step, and an input may differ more from the one before.
REFRESH_EVERY = 100
MOST_REMEMBERED = 256
_COUNT = struct.Struct("<I")
_ALL = 0xFFFFFFFF  # in place of a count: the tensor as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """See `runtimes.contracts.Codec`.

    Attributes:
        share: Of a tensor's values that the threshold is found for.
        values: Codes what is kept.
        remembered: By name and shape of a tensor: the threshold, and how often it was used.
    """

    share: float
    values: Codec
    lossless: bool = False
    fixed_size: bool = False
    # Medians of runtimes.codec_speed on an x86-64 server core.
    encode_s_per_byte: float = 0.6e-9
    decode_s_per_byte: float = 0.7e-9
    remembered: dict[tuple[str, tuple[int, ...]], tuple[float, int]] = field(default_factory=dict, compare=False)

    def encode(self, arrays: Sequence[np.ndarray], tensors: Sequence[TensorInfo]) -> bytes:
        """Of each tensor: how many values, where, and which; or the tensor as it is, where that is shorter."""
        checked(arrays, tensors)
        return b"".join(self._encode(array, tensor) for array, tensor in zip(arrays, tensors, strict=True))

    def decode(self, payload: bytes, tensors: Sequence[TensorInfo]) -> tuple[np.ndarray, ...]:
        """Kept values at their places, zeros elsewhere."""
        if len(payload) > self.encoded_bytes(tensors):
            raise BadInput(f"codec threshold: {len(payload)} bytes arrived, at most {self.encoded_bytes(tensors)}.")
        found, start = [], 0
        for tensor in tensors:
            array, start = self._decode(payload, start, tensor)
            found.append(array)
        if start != len(payload):
            raise BadInput(f"codec threshold: {len(payload)} bytes arrived, must be {start}.")
        return tuple(found)

    def encoded_bytes(self, tensors: Sequence[TensorInfo]) -> int:
        """The most: each tensor as it is, and a count."""
        return sum(tensor_bytes(tensor) + (_COUNT.size if _codes(tensor) else 0) for tensor in tensors)

    def _encode(self, array: np.ndarray, tensor: TensorInfo) -> bytes:
        if not _codes(tensor):
            return to_wire(array, tensor.dtype)
        flat = array.reshape(-1)
        far = magnitudes(flat, resting_value(tensor) or 0)
        places = np.flatnonzero((far >= self._threshold(far, tensor)) & (far > 0))
        count = len(places)
        if count and self._coded_bytes(tensor, count) >= tensor_bytes(tensor):
            return _COUNT.pack(_ALL) + to_wire(array, tensor.dtype)
        kept = self.values.encode((flat[places],), (values_info(tensor, count),))
        return _COUNT.pack(count) + write_positions(places, flat.size) + kept

    def _decode(self, payload: bytes, start: int, tensor: TensorInfo) -> tuple[np.ndarray, int]:
        whole = tensor_bytes(tensor)
        if not _codes(tensor):
            self._check(payload, start + whole, tensor)
            return from_wire(payload[start : start + whole], tensor.dtype, tensor.shape), start + whole
        self._check(payload, start + _COUNT.size, tensor)
        (count,) = _COUNT.unpack_from(payload, start)
        start += _COUNT.size
        size = math.prod(tensor.shape)
        if count == _ALL:
            self._check(payload, start + whole, tensor)
            return from_wire(payload[start : start + whole], tensor.dtype, tensor.shape), start + whole
        if count > size:
            raise BadInput(f"codec threshold: {tensor.name}: {count} values arrived, at most {size}.")
        middle, end = start + position_bytes(count, size), start + self._coded_bytes(tensor, count)
        self._check(payload, end, tensor)
        where = f"codec threshold: {tensor.name}"
        places = read_positions(payload[start:middle], count, size, where=where)
        (values,) = self.values.decode(payload[middle:end], (values_info(tensor, count),))
        found = np.full(size, resting_value(tensor), dtype=values.dtype)
        found[places] = values
        return found.reshape(tensor.shape), end

    def _coded_bytes(self, tensor: TensorInfo, count: int) -> int:
        """Positions and values."""
        size = math.prod(tensor.shape)
        return position_bytes(count, size) + self.values.encoded_bytes((values_info(tensor, count),))

    def _threshold(self, far: np.ndarray, tensor: TensorInfo) -> float:
        key = (tensor.name, tensor.shape)
        found, uses = self.remembered.get(key, (0.0, REFRESH_EVERY))
        if uses >= REFRESH_EVERY:
            place = far.size - max(1, math.ceil(self.share * far.size))
            found, uses = float(np.partition(far, place)[place]), 0
            if len(self.remembered) >= MOST_REMEMBERED:
                self.remembered.clear()
        self.remembered[key] = (found, uses + 1)
        return found

    def _check(self, payload: bytes, end: int, tensor: TensorInfo) -> None:
        if len(payload) < end:
            raise BadInput(f"codec threshold: {len(payload)} bytes arrived, {tensor.name} must reach to {end}.")


def _codes(tensor: TensorInfo) -> bool:
    return resting_value(tensor) is not None and math.prod(tensor.shape) > 0


def codec(option: str = "") -> Threshold:
    """The codec; 10 % in their own type where the option names nothing else.

    Raises:
        BadInput: The option is no share.
    """
    share, values = parse_kept_share("threshold", option or OPTIONS[0])
    return Threshold(share=share, values=values)
