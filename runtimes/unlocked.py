"""Map files without locking them into memory: ExecuTorch's Python runtime locks what it maps wherever it may.

A locked table is resident as a whole, whatever is looked up in it. The runtime goes on where locking is refused, so it
is refused while a program is loaded: by the limit, and for root, whom no limit binds, by laying the capability aside.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import resource
except ImportError:  # Windows, where nothing is locked
    resource = None  # type: ignore[assignment]  # asked for before each use

__all__ = ["without_locks"]

_CAPABILITIES_V3 = 0x20080522
_IPC_LOCK = 1 << 14


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def without_locks() -> Iterator[None]:
    """What this thread maps in the block is not locked into memory; elsewhere than on Linux nothing changes."""
    if resource is None or not sys.platform.startswith("linux"):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    before = _capabilities()
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
    if before is not None and before[0].effective & _IPC_LOCK:
        less = (_Sets * 2)(*before)
        less[0].effective &= ~_IPC_LOCK
        _set_capabilities(less)
    try:
        yield
    finally:
        if before is not None:
            _set_capabilities(before)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))


def _capabilities() -> ctypes.Array[_Sets] | None:
    """Of this thread; None where the system does not tell."""
    found = (_Sets * 2)()
    header = _Header(_CAPABILITIES_V3, 0)
    try:
        told = ctypes.CDLL(None, use_errno=True).capget(ctypes.byref(header), found)
    except (OSError, AttributeError):
        return None
    return found if told == 0 else None


def _set_capabilities(sets: ctypes.Array[_Sets]) -> None:
    header = _Header(_CAPABILITIES_V3, 0)
    ctypes.CDLL(None, use_errno=True).capset(ctypes.byref(header), sets)
