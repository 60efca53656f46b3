"""Memory cannot be locked in the block, and can be behind it as before."""

import ctypes
import mmap
import sys

import pytest

from runtimes.unlocked import without_locks


def can_lock():
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        held = ctypes.c_char.from_buffer(page)
        address = ctypes.c_void_p(ctypes.addressof(held))
        locked = libc.mlock(address, mmap.PAGESIZE) == 0
        if locked:
            libc.munlock(address, mmap.PAGESIZE)
        del held
    return locked


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing is locked")
def test_locks_are_refused_in_the_block_and_granted_again_behind_it():
    if not can_lock():
        pytest.skip("this process may lock nothing anyway")
    with without_locks():
        assert not can_lock()
    assert can_lock()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing is locked")
def test_they_are_granted_again_after_an_error():
    before = can_lock()
    with pytest.raises(ValueError, match="on the way"), without_locks():
        raise ValueError("on the way")
    assert can_lock() == before
