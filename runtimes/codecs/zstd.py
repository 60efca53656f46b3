"""Zstandard over another codec's bytes, or over the tensors as they are; option: its level. Lossless."""

from __future__ import annotations

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from runtimes.codecs.raw import Raw
from runtimes.contracts import Codec
from runtimes.squeezed import Squeezed

__all__ = ["OPTIONS", "codec", "over"]

OPTIONS = ("",)
FASTEST, BEST = 1, 19


def over(inner: Codec, option: str = "") -> Squeezed:
    """Zstandard behind `inner`; level 1 where the option names none.

    Raises:
        BadInput: Another option than a level.
        MissingExtra: zstandard is not installed.
    """
    level = int(option) if option.isascii() and option.isdigit() and len(option) < 3 else 0
    if option and not FASTEST <= level <= BEST:
        raise BadInput(f"codec zstd:{option}: must be a level from {FASTEST} to {BEST}, or nothing.")
    zstandard = require("zstandard", extra="codecs")

    def squeeze(plain: bytes) -> bytes:
        # A new context for each call: they may not be shared between threads.
        squeezed: bytes = zstandard.ZstdCompressor(level=level or FASTEST).compress(plain)
        return squeezed

    def expand(payload: bytes, most: int) -> bytes:
        try:
            # The library takes the memory that the frame asks for, whatever limit it is given: look first.
            claimed = zstandard.get_frame_parameters(payload).content_size
            if claimed > most:
                raise BadInput(f"codec zstd: a frame of {claimed} bytes arrived, must be at most {most}.")
            plain: bytes = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise BadInput(f"codec zstd: {len(payload)} bytes that are no whole frame ({error}).") from error
        return plain

    # Measured by runtimes.codec_speed on an x86-64 server core, on noise.
    return Squeezed(name="zstd", inner=inner, squeeze=squeeze, expand=expand, speed=(1.0e-9, 0.8e-9))


def codec(option: str = "") -> Squeezed:
    """Zstandard over the tensors as they are; raises as `over` does."""
    return over(Raw(), option)
