"""Of every sample only the values farthest from zero travel, the others become zero. Lossy; the size is fixed.

Option: the share that is kept, e.g. "10%", and "-int8" behind it to send the kept values as INT8. The forward half of
dynamic communication thresholding (Gupta et al., arXiv 2010.08899). Samples are the entries of the first axis.
Tensors without a zero (ids), and those that would not become smaller, travel as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.tensor import TensorInfo
from runtimes.boundary import checked, from_wire, pieces, to_wire
from runtimes.contracts import Codec
from runtimes.kept_share import magnitudes, parse_kept_share, values_info
from runtimes.positions import position_bytes, read_positions, resting_value, write_positions

__all__ = ["OPTIONS", "TopK", "codec"]

OPTIONS = ("10%", "10%-int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """See `runtimes.contracts.Codec`.

    Attributes:
        share: Of the values of a sample that are kept; one at least.
        values: Codes what is kept.
    """

    share: float
    values: Codec
    lossless: bool = False
    fixed_size: bool = True
    # Medians of runtimes.codec_speed on an x86-64 server core: selecting is what takes the time.
    encode_s_per_byte: float = 3.2e-9
    decode_s_per_byte: float = 0.7e-9

    def encode(self, arrays: Sequence[np.ndarray], tensors: Sequence[TensorInfo]) -> bytes:
        """Of each sample the positions, then of all samples the values."""
        checked(arrays, tensors)
        return b"".join(self._encode(array, tensor) for array, tensor in zip(arrays, tensors, strict=True))

    def decode(self, payload: bytes, tensors: Sequence[TensorInfo]) -> tuple[np.ndarray, ...]:
        """Kept values at their places, zeros elsewhere."""
        parts = pieces(payload, [self.encoded_bytes((tensor,)) for tensor in tensors], codec="topk")
        return tuple(self._decode(part, tensor) for part, tensor in zip(parts, tensors, strict=True))

    def encoded_bytes(self, tensors: Sequence[TensorInfo]) -> int:
        """Known beforehand: so many values of each sample, whatever they are."""
        return sum(min(self._coded_bytes(tensor), tensor_bytes(tensor)) for tensor in tensors)

    def _coded_bytes(self, tensor: TensorInfo) -> int:
        """With this codec; as they are where that is not possible."""
        samples, size, kept = self._plan(tensor)
        if resting_value(tensor) is None or not samples * size:
            return tensor_bytes(tensor)
        return samples * position_bytes(kept, size) + self.values.encoded_bytes((values_info(tensor, samples * kept),))

    def _plan(self, tensor: TensorInfo) -> tuple[int, int, int]:
        """Samples, values of each, values of each that are kept."""
        samples = tensor.shape[0] if len(tensor.shape) > 1 else 1
        size = math.prod(tensor.shape[1:]) if len(tensor.shape) > 1 else math.prod(tensor.shape)
        return samples, size, min(size, max(1, math.ceil(self.share * size)))

    def _encode(self, array: np.ndarray, tensor: TensorInfo) -> bytes:
        if self._coded_bytes(tensor) >= tensor_bytes(tensor):
            return to_wire(array, tensor.dtype)
        samples, size, kept = self._plan(tensor)
        rows = array.reshape(samples, size)
        far = magnitudes(rows, resting_value(tensor) or 0)
        places = np.sort(np.argpartition(far, size - kept, axis=1)[:, size - kept :], axis=1)
        chosen = np.take_along_axis(rows, places, axis=1).reshape(-1)
        positions = b"".join(write_positions(row, size) for row in places)
        return positions + self.values.encode((chosen,), (values_info(tensor, samples * kept),))

    def _decode(self, payload: bytes, tensor: TensorInfo) -> np.ndarray:
        if self._coded_bytes(tensor) >= tensor_bytes(tensor):
            return from_wire(payload, tensor.dtype, tensor.shape)
        samples, size, kept = self._plan(tensor)
        wide = position_bytes(kept, size)
        where = f"codec topk: {tensor.name}"
        (values,) = self.values.decode(payload[samples * wide :], (values_info(tensor, samples * kept),))
        found = np.full((samples, size), resting_value(tensor), dtype=values.dtype)
        for row in range(samples):
            places = read_positions(payload[row * wide : (row + 1) * wide], kept, size, where=where)
            found[row, places] = values[row * kept : (row + 1) * kept]
        return found.reshape(tensor.shape)


def codec(option: str = "") -> TopK:
    """The codec; 10 % in their own type where the option names nothing else.

    Raises:
        BadInput: The option is no share.
    """
    share, values = parse_kept_share("topk", option or OPTIONS[0])
    return TopK(share=share, values=values)
