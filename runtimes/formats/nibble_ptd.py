"""4-bit weights beside a `.pte`: stored two to a byte, inflated to int8 in memory when the program is loaded.

ExecuTorch takes a program's external constants from a `.ptd` file and has no packed 4-bit convolution, so the `.ptd`
that it needs holds one byte for each weight. Ours is that file with its 4-bit regions packed:

    offset  size   content (all numbers little-endian)
    0       8      magic "EDNIB4\\x00\\x01" (last byte: version)
    8       8      u64 size of the inflated `.ptd`
    16      4      u32 number of regions, R
    20      4      u32 zero
    24      24 R   a region: u64 offset in the inflated file, u64 inflated bytes, u32 bits (8 as is, 4 packed), u32 zero
    ...            stored bytes of the regions, in order: n bytes for 8 bits, (n + 1) // 2 for 4 bits

In a packed region the weight of even index stands in the upper half of its byte; each half is the weight + 8. What no
region covers is zero. Regions are in ascending order and do not overlap; the file ends with the last region.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["MAGIC", "Region", "inflate", "is_packed", "pack", "read_regions", "unpack_nibbles"]

MAGIC = b"EDNIB4\x00\x01"
_HEAD = struct.Struct("<8sQII")
_REGION = struct.Struct("<QQII")
LARGEST_GAP = 4096
"""Most zeros beside a region, which stand for alignment; a damaged length must not exhaust the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A run of bytes of the inflated file.

    Attributes:
        start: Where it begins in the inflated file.
        size: Its bytes in the inflated file.
        bits: 8 (stored as is) or 4.
    """

    start: int
    size: int
    bits: int

    @property
    def stored(self) -> int:
        """Its bytes in the packed file."""
        return self.size if self.bits == 8 else (self.size + 1) // 2


def pack(plain: bytes, regions: Sequence[Region]) -> bytes:
    """The packed file for a `.ptd` whose non-zero bytes all lie in `regions`.

    Raises:
        BadInput: A 4-bit region holds a weight outside [-8, 7], or something stands outside the regions.
    """
    parts = [_HEAD.pack(MAGIC, len(plain), len(regions), 0)]
    parts += [_REGION.pack(region.start, region.size, region.bits, 0) for region in regions]
    covered = np.zeros(len(plain), bool)
    for region in regions:
        raw = plain[region.start : region.start + region.size]
        covered[region.start : region.start + region.size] = True
        parts.append(raw if region.bits == 8 else _pack_nibbles(np.frombuffer(raw, np.int8)))
    if np.frombuffer(plain, np.uint8)[~covered].any():
        raise BadInput("4-bit container: bytes outside its regions are not zero.")
    return b"".join(parts)


def _pack_nibbles(weights: np.ndarray) -> bytes:
    if weights.size and (weights.min() < -8 or weights.max() > 7):
        raise BadInput(f"4-bit container: weights from {weights.min()} to {weights.max()}: must lie in [-8, 7].")
    halves = (weights.astype(np.int16) + 8).astype(np.uint8)
    if len(halves) % 2:
        halves = np.append(halves, np.uint8(0))
    return ((halves[0::2] << 4) | halves[1::2]).astype(np.uint8).tobytes()


def unpack_nibbles(packed: np.ndarray, count: int) -> np.ndarray:
    """`count` int8 weights out of their bytes."""
    weights = np.empty(2 * len(packed), np.int8)
    weights[0::2] = (packed >> 4).astype(np.int8) - 8
    weights[1::2] = (packed & 15).astype(np.int8) - 8
    return weights[:count]


def is_packed(path: Path) -> bool:
    """Whether a file is one of ours rather than a stock `.ptd`."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_regions(data: bytes, *, where: str) -> tuple[int, tuple[Region, ...]]:
    """Size of the inflated file, and its regions.

    Raises:
        BadInput: The bytes are not a whole packed file.
    """
    try:
        magic, total, count, _ = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise BadInput(f"{where}: begins with {magic!r}: must be {MAGIC!r}; it is not a packed weight file.")
        if count > len(data) // _REGION.size or total > 2 * len(data) + LARGEST_GAP * (count + 1):
            raise BadInput(f"{where}: announces {total} bytes in {count} regions; the file is damaged, get it again.")
        rows = [_REGION.unpack_from(data, _HEAD.size + index * _REGION.size) for index in range(count)]
    except struct.error as error:
        raise BadInput(f"{where}: ends after {len(data)} bytes, inside its header; get it again.") from error
    regions = tuple(Region(start=start, size=size, bits=bits) for start, size, bits, _ in rows)
    end = 0
    for region in regions:
        if region.bits not in (4, 8) or region.start < end or region.start + region.size > total:
            raise BadInput(f"{where}: region {region} does not fit; the file is damaged, get it again.")
        end = region.start + region.size
    wanted = _HEAD.size + len(regions) * _REGION.size + sum(region.stored for region in regions)
    if wanted != len(data):
        raise BadInput(f"{where}: {len(data)} bytes, its header says {wanted}; the file is damaged, get it again.")
    return total, regions


def inflate(data: bytes, *, where: str) -> bytes:
    """The `.ptd` that ExecuTorch takes.

    Raises:
        BadInput: The bytes are not a whole packed file.
    """
    total, regions = read_regions(data, where=where)
    result = np.zeros(total, np.uint8)
    at = _HEAD.size + len(regions) * _REGION.size
    for region in regions:
        stored = np.frombuffer(data, np.uint8, region.stored, at)
        plain = stored if region.bits == 8 else unpack_nibbles(stored, region.size).view(np.uint8)
        result[region.start : region.start + region.size] = plain
        at += region.stored
    return result.tobytes()
