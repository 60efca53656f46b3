"""A codec with a lossless compressor behind it: what `zstd` and `lz4` in `runtimes.codecs` have in common.

One byte tells whether the rest is compressed: what does not become smaller travels as it is. So a payload is never
more than one byte longer than without the compressor, and a receiver knows the most that may come out of it before it
takes memory: a payload that claims, or turns out to hold, more is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.contracts import Codec

__all__ = ["Squeezed"]

_STORED, _SQUEEZED = b"\x00", b"\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Squeezed:
    """See `runtimes.contracts.Codec`.

    Attributes:
        name: For messages.
        inner: Makes the bytes that are compressed.
        squeeze: Compresses; may be longer.
        expand: Gets bytes and the most that may come out of them; raises BadInput for anything else.
        speed: Seconds of compressing and of expanding each byte that `inner` makes of float values, estimated.
    """

    name: str
    inner: Codec
    squeeze: Callable[[bytes], bytes]
    expand: Callable[[bytes, int], bytes]
    speed: tuple[float, float]

    @property
    def lossless(self) -> bool:
        """As what is inside."""
        return self.inner.lossless

    @property
    def fixed_size(self) -> bool:
        """Never: the values decide."""
        return False

    @property
    def encode_s_per_byte(self) -> float:
        """Both stages, one byte of the uncoded boundary."""
        return self.inner.encode_s_per_byte + self.speed[0] * self._share

    @property
    def decode_s_per_byte(self) -> float:
        """Both stages, one byte of the uncoded boundary."""
        return self.inner.decode_s_per_byte + self.speed[1] * self._share

    def encode(self, arrays: Sequence[np.ndarray], tensors: Sequence[TensorInfo]) -> bytes:
        """What is inside, compressed where that is shorter."""
        plain = self.inner.encode(arrays, tensors)
        if not tensors:
            return plain
        squeezed = self.squeeze(plain)
        return _SQUEEZED + squeezed if len(squeezed) < len(plain) else _STORED + plain

    def decode(self, payload: bytes, tensors: Sequence[TensorInfo]) -> tuple[np.ndarray, ...]:
        """What is inside decoded; memory is taken for what the tensors need, never for what the payload claims."""
        if not tensors:
            return self.inner.decode(payload, tensors)
        most = self.inner.encoded_bytes(tensors)
        how, rest = payload[:1], payload[1:]
        if how not in (_STORED, _SQUEEZED) or len(rest) > most:
            raise BadInput(f"codec {self.name}: {len(payload)} bytes arrived, must be a flag and at most {most}.")
        return self.inner.decode(rest if how == _STORED else self.expand(rest, most), tensors)

    def encoded_bytes(self, tensors: Sequence[TensorInfo]) -> int:
        """The most: each tensor as it is inside, and a byte."""
        return sum(self.inner.encoded_bytes((tensor,)) + 1 for tensor in tensors)

    @property
    def _share(self) -> float:
        """Of the boundary, which the estimates count in: what `inner` makes of float values."""
        one = TensorInfo(name="one", shape=(1, 4096), dtype="float32")
        return self.inner.encoded_bytes((one,)) / 16384
