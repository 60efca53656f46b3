import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.c.arena import Block, Pair, plan


def test_an_output_takes_the_place_of_an_input_that_dies_with_the_step():
    blocks = [Block(key="in", bytes=100, first=0, last=1), Block(key="out", bytes=100, first=1, last=2)]
    assert plan(blocks).bytes == 200
    assert plan(blocks, [Pair(made="out", read="in", gap=0)]).bytes == 100


def test_an_output_may_begin_a_little_before_its_input():
    blocks = [Block(key="in", bytes=1000, first=0, last=1), Block(key="out", bytes=1000, first=1, last=2)]
    arena = plan(blocks, [Pair(made="out", read="in", gap=64)])
    assert arena.bytes == 1064
    assert arena.offsets["in"] - arena.offsets["out"] == 64


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 12), st.integers(0, 6)), min_size=1, max_size=14))
@settings(max_examples=60, deadline=None)
def test_what_is_alive_together_never_overlaps_and_nothing_is_wasted_needlessly(wanted):
    blocks = [
        Block(key=str(number), bytes=size, first=first, last=first + length)
        for number, (size, first, length) in enumerate(wanted)
    ]
    arena = plan(blocks)
    for one in blocks:
        for other in blocks:
            if one.key < other.key and one.first <= other.last and other.first <= one.last:
                a, b = arena.offsets[one.key], arena.offsets[other.key]
                assert a + one.bytes <= b or b + other.bytes <= a
    rounded = [-(-block.bytes // 4) * 4 for block in blocks]
    assert arena.bytes <= sum(rounded)
    least = max(sum(block.bytes for block in blocks if block.first <= step <= block.last) for step in np.arange(20))
    assert arena.bytes >= least
