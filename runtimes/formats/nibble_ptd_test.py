import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.core.errors import BadInput
from runtimes.formats.nibble_ptd import MAGIC, Region, inflate, is_packed, pack, read_regions


def packed(weights: np.ndarray, head: bytes = b"\x07header") -> tuple[bytes, bytes]:
    """A plain file with gaps of zeros, and its packed form."""
    start = len(head) + 9
    plain = head + bytes(9) + weights.astype(np.int8).tobytes() + bytes(5)
    regions = (Region(start=0, size=len(head), bits=8), Region(start=start, size=len(weights), bits=4))
    return plain, pack(plain, regions)


@given(st.lists(st.integers(-8, 7), max_size=65))
def test_inflating_gives_back_the_plain_file(weights):
    plain, data = packed(np.array(weights, np.int8))
    assert inflate(data, where="x") == plain


@given(st.integers(0, 200))
def test_a_weight_takes_half_a_byte(count):
    _, none = packed(np.zeros(0))
    _, some = packed(np.zeros(count))
    assert len(some) - len(none) == (count + 1) // 2


def test_weights_that_need_more_bits_are_refused():
    with pytest.raises(BadInput, match=r"-9 to 3"):
        packed(np.array([-9, 3]))


def test_bytes_outside_the_regions_must_not_be_lost():
    with pytest.raises(BadInput, match="outside its regions"):
        pack(b"abc", (Region(start=0, size=2, bits=8),))


@given(st.integers(0, 200), st.integers(0, 255), st.integers(0, 200))
def test_damaged_files_are_inflated_or_refused(position, value, cut):
    _, data = packed(np.arange(-8, 8))
    mutated = bytearray(data)
    mutated[position % len(mutated)] = value
    for candidate in (bytes(mutated), data[: cut % len(data)]):
        try:
            inflate(candidate, where="x")
        except BadInput as error:
            assert str(error).startswith("x:")


def test_a_length_that_would_fill_the_memory_is_refused():
    data = struct.pack("<8sQII", MAGIC, 1 << 60, 0, 0)
    with pytest.raises(BadInput, match="damaged"):
        read_regions(data, where="x")


def test_a_packed_file_is_told_from_a_stock_one(tmp_path):
    (tmp_path / "ours.ptd").write_bytes(packed(np.zeros(4))[1])
    (tmp_path / "stock.ptd").write_bytes(b"\0\0\0\0FT01")
    assert is_packed(tmp_path / "ours.ptd")
    assert not is_packed(tmp_path / "stock.ptd")
