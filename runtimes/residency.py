"""Keep a mapped model from filling the memory: pages of tables that were looked up are given back now and then.

A look-up brings in the pages around its row, and they stay resident as long as nobody else needs the memory. What is
given back stays in the system's cache: the next look-up finds it there.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Residency", "residency_of"]

LEAST_FILE_BYTES = 64 << 20  # below, all of the model may stay
MOST_GROWTH_BYTES = 6 << 20
RUNS_BETWEEN_LOOKS = 4
SLICES = 8
_DONT_NEED = 4


def residency_of(*paths: Path) -> Residency | None:
    """For a session that has mapped these files; None where they are small, or not mapped, or on other systems."""
    if not sys.platform.startswith("linux"):
        return None
    large = {os.path.realpath(path) for path in paths if path.stat().st_size >= LEAST_FILE_BYTES}
    ranges = _ranges(large) if large else ()
    return Residency(ranges) if ranges else None


def _ranges(paths: set[str]) -> tuple[tuple[int, int], ...]:
    found = []
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    for line in lines:
        place, access, *_, name = line.split(maxsplit=5) if line.count("/") else ("", "", "")
        if name in paths and "w" not in access:
            first, last = (int(end, 16) for end in place.split("-"))
            found.append((first, last - first))
    return tuple(found)


class Residency:
    """Counts runs, and gives pages back once the process has grown by them.

    One slice of the model after another is given back, only until enough is free again: what was brought in last
    stays, and a page stays about twice as long as if all were given back at once.
    """

    def __init__(self, ranges: tuple[tuple[int, int], ...]) -> None:
        self._slices = deque(_sliced(ranges))
        self._madvise = ctypes.CDLL(None).madvise
        self._madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._left = RUNS_BETWEEN_LOOKS
        self._most = self._mapped_bytes() + MOST_GROWTH_BYTES

    def ran(self) -> None:
        """To be called after each inference."""
        self._left -= 1
        if self._left:
            return
        self._left = RUNS_BETWEEN_LOOKS
        for _ in range(len(self._slices)):
            if self._mapped_bytes() <= self._most:
                return
            self._madvise(*self._slices[0], _DONT_NEED)
            self._slices.rotate(-1)
        # Nothing of the model is left: other files of this process have grown.
        self._most = self._mapped_bytes() + MOST_GROWTH_BYTES

    def close(self) -> None:
        """Forget the mapping, which is about to go."""
        self._slices.clear()
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1

    def _mapped_bytes(self) -> int:
        return int(os.pread(self._statm, 128, 0).split()[2]) * self._page


def _sliced(ranges: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """Parts of about the same size, each beginning on a page."""
    step = -(-sum(size for _, size in ranges) // SLICES // mmap.PAGESIZE) * mmap.PAGESIZE
    for start, size in ranges:
        for at in range(0, size, step):
            yield start + at, min(step, size - at)
