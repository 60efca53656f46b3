"""How fast this machine encodes and decodes a boundary: what a device's profile says of its codecs."""

from __future__ import annotations

import time

import numpy as np

from edge_deploy.core.tensor import TensorInfo
from runtimes.codecs import load_codec

__all__ = ["codec_s_per_byte"]

# About a feature map of a CNN; small boundaries cost more a byte, but little altogether.
_ELEMENTS = 100_000
_ROUNDS = 15


def codec_s_per_byte(codec: str, *, elements: int = _ELEMENTS) -> tuple[float, float]:
    """Median seconds of encoding and of decoding each byte of a float32 boundary, on one core.

    Raises:
        BadInput: No such codec.
    """
    coder = load_codec(codec)
    tensors = (TensorInfo(name="boundary", shape=(1, elements), dtype="float32"),)
    arrays = (np.random.default_rng(0).standard_normal((1, elements)).astype(np.float32),)
    encode, decode = [], []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        payload = coder.encode(arrays, tensors)
        between = time.perf_counter()
        coder.decode(payload, tensors)
        decode.append(time.perf_counter() - between)
        encode.append(between - start)
    size = arrays[0].nbytes
    return float(np.median(encode)) / size, float(np.median(decode)) / size
