"""Two 4-bit values in a byte, low nibble first, as TFLite and LiteRT read them."""

from __future__ import annotations

import numpy as np

__all__ = ["pack_int4", "unpack_int4"]


def pack_int4(values: np.ndarray) -> np.ndarray:
    """Flat uint8 array of ceil(n / 2) bytes; the element of even index stands in the low nibble.

    Raises:
        ValueError: A value lies outside [-8, 7].
    """
    flat = np.asarray(values).reshape(-1)
    if flat.size and (flat.min() < -8 or flat.max() > 7):
        raise ValueError(f"4-bit values must lie in [-8, 7]; found {flat.min()} to {flat.max()}")
    nibbles = flat.astype(np.int8).view(np.uint8) & 0x0F
    if nibbles.size % 2:
        nibbles = np.append(nibbles, np.uint8(0))
    packed: np.ndarray = nibbles[0::2] | (nibbles[1::2] << 4)
    assert packed.size == (flat.size + 1) // 2
    return packed


def unpack_int4(packed: np.ndarray, count: int) -> np.ndarray:
    """The `count` values that `pack_int4` packed, as int8.

    Raises:
        ValueError: The buffer has another length than `count` values take.
    """
    data = np.asarray(packed).view(np.uint8).reshape(-1)
    if data.size != (count + 1) // 2:
        raise ValueError(f"{count} packed 4-bit values take {(count + 1) // 2} bytes; found {data.size}")
    nibbles = np.empty(data.size * 2, np.uint8)
    nibbles[0::2] = data & 0x0F
    nibbles[1::2] = data >> 4
    values: np.ndarray = (nibbles[:count] ^ 8).astype(np.int8) - np.int8(8)
    return values
