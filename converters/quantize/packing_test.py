import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.quantize.packing import pack_int4, unpack_int4


@given(st.lists(st.integers(-8, 7), max_size=99))
def test_packing_and_unpacking_gives_the_values_back_in_half_the_bytes(values):
    packed = pack_int4(np.array(values, np.int8))
    assert packed.size == -(-len(values) // 2)
    assert unpack_int4(packed, len(values)).tolist() == values


def test_the_first_value_stands_in_the_low_nibble():
    assert pack_int4(np.array([1, -1])).tolist() == [0xF1]


def test_values_outside_four_bits_are_refused():
    with pytest.raises(ValueError, match="must lie in"):
        pack_int4(np.array([8]))


def test_a_buffer_of_another_length_is_refused():
    with pytest.raises(ValueError, match="take 2 bytes"):
        unpack_int4(np.zeros(3, np.uint8), 3)
