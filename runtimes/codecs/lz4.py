"""LZ4 over another codec's bytes, or over the tensors as they are. Lossless."""

from __future__ import annotations

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from runtimes.codecs.raw import Raw
from runtimes.contracts import Codec
from runtimes.squeezed import Squeezed

__all__ = ["OPTIONS", "codec", "over"]

OPTIONS = ("",)


def over(inner: Codec, option: str = "") -> Squeezed:
    """LZ4 behind `inner`; it has no options.

    Raises:
        BadInput: An option was given.
        MissingExtra: lz4 is not installed.
    """
    if option:
        raise BadInput(f"codec lz4:{option}: lz4 has no options; write `lz4`.")
    block = require("lz4.block", extra="codecs")

    def squeeze(plain: bytes) -> bytes:
        squeezed: bytes = block.compress(plain, store_size=False)
        return squeezed

    def expand(payload: bytes, most: int) -> bytes:
        try:
            plain: bytes = block.decompress(payload, uncompressed_size=most)
        except (block.LZ4BlockError, ValueError, OverflowError) as error:
            found = f"{len(payload)} bytes that are no block of at most {most}"
            raise BadInput(f"codec lz4: {found} ({error}).") from error
        return plain

    # Measured by runtimes.codec_speed on an x86-64 server core, on noise.
    return Squeezed(name="lz4", inner=inner, squeeze=squeeze, expand=expand, speed=(0.4e-9, 0.2e-9))


def codec(option: str = "") -> Squeezed:
    """LZ4 over the tensors as they are; raises as `over` does."""
    return over(Raw(), option)
